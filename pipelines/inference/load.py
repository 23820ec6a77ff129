"""Loads the model of a run, or the model of a configuration that needs no training."""

from pathlib import Path

from pipelines.cli.parsing import load_config
from pipelines.config import RunConfig
from pipelines.engine import models
from pipelines.engine.saving import checkpoint
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


def load_run(output: Path, ema: bool = False) -> tuple[RunConfig, VTokFramework, int]:
    """Loads the newest checkpoint of a run.

    Args:
        output: Folder of the run.
        ema: Whether to load the average of the weights.

    Returns:
        The run's configuration, its framework on this rank's device, and the step of the weights.

    Raises:
        ConfigError: ``output`` is not the folder of a run, or holds no complete checkpoint.
    """
    config = config_of(output)
    framework = models.load_on_device(config, output)
    step = checkpoint.load_trained(framework, output, ema)
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
