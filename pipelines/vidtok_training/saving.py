"""Saves checkpoints of both engines, and the model's weights for inference.

OUTPUT/checkpoints/step_00001000/                  the autoencoder (see pipelines.engine.saving.checkpoint)
       discriminator/checkpoints/step_00001000/    the discriminator and LeCAM's averages
       vidtok.safetensors, vidtok_ema.safetensors  the newest weights and their average, for ``load_model``
"""

import os
from functools import partial
from pathlib import Path

from pipelines.cli.steps import folder_of
from pipelines.engine import distributed
from pipelines.engine.saving import choosing
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.folders import complete, step_of
from pipelines.engine.setup import Engine
from vtok.config import ConfigError
from vtok.vidtok import VidTok
from vtok.vidtok.checkpoint import save_weights

WEIGHTS, AVERAGE, DISCRIMINATOR = "vidtok.safetensors", "vidtok_ema.safetensors", "discriminator"


def resumed_from(outputs: list[Path], step: int | None) -> list[Path]:
    """Returns the checkpoints that a run goes on from, all of one step: the newest undamaged one, or the given one.

    Args:
        outputs: Folder of the run and, if it has a discriminator, the discriminator's folder.
        step: The step to go on from; ``None`` for the newest.

    Returns:
        One checkpoint in each folder; an empty list if there is none.

    Raises:
        ConfigError: The run was trained without a discriminator and now has one; it has no checkpoint of that step; or
            all are damaged.
    """
    found = distributed.rank_zero_first(lambda: common_checkpoints(outputs, step))
    return choosing.first_sound(found) if found else []


def common_checkpoints(outputs: list[Path], step: int | None) -> list[list[Path]]:
    """Lists the steps at which everything was saved, newest first: a checkpoint in each folder."""
    first, *others = outputs
    if others and complete(first) and not others[0].exists():
        raise ConfigError(
            f"{first} was trained without a discriminator: set loss.discriminator none, or start a new run"
        )
    steps = [{step_of(folder) for folder in complete(output)} for output in others]
    found = [step_of(folder) for folder in choosing.candidates(first, step)]
    return [[folder_of(output, one) for output in outputs] for one in found if all(one in own for own in steps)]


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
