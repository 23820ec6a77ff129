"""Loads the model of a run, or the model of a configuration that needs no training."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.cli.parsing import load_config
from pipelines.cli.steps import run_of
from pipelines.config import RunConfig, TrainConfig
from pipelines.engine import distributed, models
from pipelines.engine.saving.checkpoint import load_trained
from pipelines.engine.saving.choosing import located
from pipelines.engine.setup import precision
from vtok.assembly.build import drawn_weights
from vtok.assembly.pretrained import CONFIG, fetched, from_pretrained, read_config
from vtok.config import ConfigError, require
from vtok.framework import VTokFramework
from vtok.weights.materialise import whole
from vtok.weights.shipped import folder_of

# The configuration of a run, its framework and the step of its weights.
Run = tuple[RunConfig, VTokFramework, int]

# What may be a hub id, if there is no such folder.
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def config_of(output: Path) -> RunConfig:
    """Reads a run's configuration.

    Raises:
        ConfigError: ``output`` is not the folder of a run.
    """
    if not (output / "config.yaml").is_file():
        raise ConfigError(f"{output} is not the output of a training run (no config.yaml): check --checkpoint")
    return load_config(output / "config.yaml")


def load_run(checkpoint: Path, ema: bool = False) -> Run:
    """Loads a checkpoint or an export.

    Args:
        checkpoint: Folder of a run, for its newest undamaged checkpoint; folder of one of its checkpoints; or an
            export: a folder, a shipped model such as ``shapes/vtok``, or a hub id.
        ema: Whether to load the average of the weights.

    Returns:
        The run's configuration, its framework on this rank's device, and the step of the weights, 0 of an export.

    Raises:
        ConfigError: There is no such run, checkpoint or export, or it is damaged.
    """
    if exported := export_of(checkpoint):
        require(not ema, f"{checkpoint} is an export, which holds one set of weights: leave out --ema")
        return load_export(exported)
    config = config_of(run_of(checkpoint))
    run, folder = located(checkpoint)
    framework = models.load_on_device(config, run, folder)
    step = load_trained(framework, folder, ema)
    return config, framework, step


def export_of(checkpoint: Path) -> Path | None:
    """Returns the folder of an export; ``None`` if it is none. Arguments as in :func:`load_run`."""
    exported = folder_of(str(checkpoint))
    if exported is None and HUB_ID.fullmatch(str(checkpoint)):
        exported = fetched(str(checkpoint))
    return exported if exported and (exported / CONFIG).is_file() else None


def weights_of(checkpoint: Path) -> Path:
    """Returns the folder whose weights :func:`load_run` loads: an export, or a checkpoint, of a run the newest.

    Raises:
        ConfigError: There is no such run, checkpoint or export, or it is damaged.
    """
    return export_of(checkpoint) or located(checkpoint)[1]


def load_export(folder: Path) -> Run:
    """Loads what ``export.py`` wrote. Returns the same as :func:`load_run`."""
    config = RunConfig(TrainConfig(max_steps=1), model=read_config(folder / CONFIG))
    config.data.seconds = json.loads((folder / CONFIG).read_text()).get("seconds", config.data.seconds)
    framework = from_pretrained(folder, whole(precision(config.train), distributed.device()))
    return config, framework.eval().to(distributed.device()), 0


def load_untrained(path: Path, drawn: bool = False, changes: Sequence[str] = ()) -> Run:
    """Loads a configuration's published weights. Returns the same as :func:`load_run`, with step 0.

    Args:
        path: The configuration.
        drawn: Whether parts between frames and answer may have random weights, drawn from the configuration's seed.
            Such a model is the untrained row of a table; it says so.
        changes: Options of the command line, ``--section.key=value``, in which to differ from the configuration.

    Raises:
        ConfigError: There is no such configuration, or such a part must be trained first.
    """
    config = load_config(path, changes)
    framework = models.load_on_device(config, path.parent)
    if names := drawn_weights(framework):
        if not drawn:
            raise ConfigError(
                f"{path}: {names[0]} has random weights: train the model first, or set tokeniser.strategy to "
                "training_free"
            )
        print(f"{path}: untrained: {names[0]} and {len(names) - 1} more have random weights", file=sys.stderr)
    return config, framework, 0
