"""Loads the model of a run, or the model of a configuration that needs no training."""

from pathlib import Path

from pipelines.cli.parsing import load_config
from pipelines.config import RunConfig
from pipelines.engine import models
from pipelines.engine.saving.checkpoint import load_trained
from pipelines.engine.saving.choosing import located, run_of
from vtok.assembly.build import drawn_weights
from vtok.config import ConfigError
from vtok.framework import VTokFramework


def config_of(output: Path) -> RunConfig:
    """Reads a run's configuration.

    Raises:
        ConfigError: ``output`` is not the folder of a run.
    """
    if not (output / "config.yaml").is_file():
        raise ConfigError(f"{output} is not the output of a training run (no config.yaml): check --checkpoint")
    return load_config(output / "config.yaml")


def load_run(checkpoint: Path, ema: bool = False) -> tuple[RunConfig, VTokFramework, int]:
    """Loads a checkpoint.

    Args:
        checkpoint: Folder of a run, for its newest undamaged checkpoint; or folder of one of its checkpoints.
        ema: Whether to load the average of the weights.

    Returns:
        The run's configuration, its framework on this rank's device, and the step of the weights.

    Raises:
        ConfigError: There is no such run or checkpoint, or it is damaged.
    """
    config = config_of(run_of(checkpoint))
    run, folder = located(checkpoint)
    framework = models.load_on_device(config, run)
    step = load_trained(framework, folder, ema)
    return config, framework, step


def load_untrained(path: Path) -> tuple[RunConfig, VTokFramework, int]:
    """Loads a configuration's published weights. Returns the same as :func:`load_run`, with step 0.

    Raises:
        ConfigError: There is no such configuration, or a part between frames and answer must be trained first.
    """
    config = load_config(path)
    framework = models.load_on_device(config, path.parent)
    if drawn := drawn_weights(framework):
        raise ConfigError(
            f"{path}: {drawn[0]} has random weights: train the model first, or set tokeniser.strategy to training_free"
        )
    return config, framework, 0
