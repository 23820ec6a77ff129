"""Saves checkpoints of both engines, and the model's weights for inference.

OUTPUT/checkpoints/step_00001000/                  the autoencoder (see pipelines.engine.saving.checkpoint)
       discriminator/checkpoints/step_00001000/    the discriminator and LeCAM's averages
       vidtok.safetensors, vidtok_ema.safetensors  the newest weights and their average, for ``load_model``
"""

import os
from collections import defaultdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pipelines.cli.steps import folder_of
from pipelines.engine import distributed
from pipelines.engine.internals import Partition, masters, partitions
from pipelines.engine.loop import Player
from pipelines.engine.saving import choosing
from pipelines.engine.saving.folders import complete, step_of
from pipelines.engine.saving.slices import write_tensors
from pipelines.engine.setup import Engine
from pipelines.vidtok_training.config import VidTokRunConfig
from vtok.config import ConfigError
from vtok.weights import StoredTensor, open_file

PREFIX = "model."  # of the autoencoder's names in the engine
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


def export(player: Player, config: VidTokRunConfig, output: Path) -> None:
    """Writes the weights, and their average if there is one, in fp32. All ranks must call this.

    Trained weights are the fp32 masters, so a bf16 run loses no digit. A frozen encoder has its stored weights.
    """
    frozen = frozen_weights(config)
    write(player.engine, masters(player.engine), frozen, output / WEIGHTS)
    if player.ema:
        write(player.engine, player.ema.buffers, frozen, output / AVERAGE)


def frozen_weights(config: VidTokRunConfig) -> dict[str, StoredTensor]:
    """Returns the stored weights of a frozen encoder, by name."""
    if not config.fix_encoder:
        return {}
    assert config.weights is not None  # the configuration has checked this
    return {name: tensor for name, tensor in open_file(Path(config.weights)).items() if name.startswith("encoder.")}


def write(engine: Engine, buffers: list[Tensor], frozen: dict[str, StoredTensor], path: Path) -> None:
    """Writes a model whose trained weights are in these buffers; the file appears only when it is complete.

    Args:
        engine: The autoencoder's engine.
        buffers: Weights of this rank in the layout of :func:`pipelines.engine.internals.masters`.
        frozen: Stored weights that are not trained, by name.
        path: The file.
    """
    own: dict[str, list[Partition]] = defaultdict(list)
    for partition in partitions(engine):
        own[partition.name].append(partition)
    state = {}
    for name, value in engine.module.model.state_dict(prefix=PREFIX).items():
        short = name.removeprefix(PREFIX)
        whole = torch.zeros(value.numel(), device=engine.device)
        if short in frozen:
            frozen[short].read_into(whole, 0)
        else:
            for one in own[name]:
                whole[one.start : one.start + one.numel] = one.of(buffers)
            distributed.reduce_over_ranks(whole)
        state[short] = whole.view(value.shape).cpu()
    distributed.rank_zero_first(partial(write_file, state, path))


def write_file(state: dict[str, Tensor], path: Path) -> None:
    """Writes a file that appears only when it is complete."""
    part = path.with_suffix(".part")
    write_tensors(part, state)
    os.replace(part, path)
