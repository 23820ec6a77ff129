"""Loads the model of a run, or of a configuration whose published weights need no training."""

from pathlib import Path

from pipelines.cli.parsing import load_config
from pipelines.config import RunConfig
from pipelines.engine import models
from pipelines.engine.saving import checkpoint
from vtok.assembly.build import drawn_weights
from vtok.config import ConfigError
from vtok.framework import VTokFramework


def config_of(output: Path) -> RunConfig:
    """A run's configuration; raises ConfigError if ``output`` is not the folder of a run."""
    if not (output / "config.yaml").is_file():
        raise ConfigError(f"{output} is not the output of a training run (no config.yaml): check --checkpoint")
    return load_config(output / "config.yaml")


def load_run(output: Path, ema: bool = False) -> tuple[RunConfig, VTokFramework, int]:
    """A run's configuration, its framework with the newest trained weights or their average, and their step.

    Raises:
        ConfigError: ``output`` is not the folder of a run, or holds no complete checkpoint.
    """
    config = config_of(output)
    framework = models.load_on_device(config, output)
    step = checkpoint.load_trained(framework, output, ema)
    return config, framework, step


def load_untrained(path: Path) -> tuple[RunConfig, VTokFramework, int]:
    """What :func:`load_run` gives, of a configuration's published weights alone; the step is 0.

    Raises:
        ConfigError: no such configuration, or something between frames and answer has to be trained first.
    """
    config = load_config(path)
    framework = models.load_on_device(config, path.parent)
    if drawn := drawn_weights(framework):
        raise ConfigError(
            f"{path}: {drawn[0]} has random weights: train the model first, or set tokeniser.strategy to training_free"
        )
    return config, framework, 0
