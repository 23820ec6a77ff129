"""Saves checkpoints of both engines, and the model's weights for inference.

OUTPUT/checkpoints/step_00001000/                  the autoencoder (see pipelines.engine.saving.checkpoint)
       discriminator/checkpoints/step_00001000/    the discriminator and LeCAM's averages
       vidtok.safetensors, vidtok_ema.safetensors  the newest weights and their average, for ``load_model``
"""

import os
from functools import partial
from pathlib import Path

from pipelines.engine import distributed
from pipelines.engine.saving import checkpoint
from pipelines.engine.saving.ema import Ema
from pipelines.engine.setup import Engine
from vtok.config import ConfigError
from vtok.vidtok import VidTok
from vtok.vidtok.checkpoint import save_weights

WEIGHTS, AVERAGE, DISCRIMINATOR = "vidtok.safetensors", "vidtok_ema.safetensors", "discriminator"


def newest_step(output: Path, with_discriminator: bool) -> int | None:
    """Returns the newest step at which the autoencoder and, if there is one, the discriminator were saved.

    Args:
        output: Folder of the run.
        with_discriminator: Whether the run has a discriminator.

    Returns:
        The step, or ``None`` if there is no such step.

    Raises:
        ConfigError: The run was trained without a discriminator and now has one.
    """
    if with_discriminator and checkpoint.complete(output) and not (output / DISCRIMINATOR).exists():
        raise ConfigError(
            f"{output} was trained without a discriminator: set loss.discriminator none, or start a new run"
        )
    folders = [output, output / DISCRIMINATOR] if with_discriminator else [output]
    steps = [{checkpoint.step_of(folder) for folder in checkpoint.complete(one)} for one in folders]
    return max(set.intersection(*steps), default=None)


def export(engine: Engine, ema: Ema | None, output: Path) -> None:
    """Writes the weights, and their average if there is one. All ranks must call this."""
    distributed.rank_zero_first(partial(write, engine.module.model, output / WEIGHTS))
    if ema:
        with ema.applied():
            distributed.rank_zero_first(partial(write, engine.module.model, output / AVERAGE))


def write(model: VidTok, path: Path) -> None:
    """Writes the weights of a model; the file appears only when it is complete."""
    part = path.with_suffix(".part")
    save_weights(model, part)
    os.replace(part, path)
