"""Checkpoints: the trained weights and the state of the run. Any number of ranks can read them. Nothing is unpickled.

    OUTPUT/checkpoints/step_00000050/    rank_XXXXX.safetensors       each rank's slices: fp32 weights, AdamW's moments,
                                                                      EMA (no frozen weights), random state
                                         feature_scale.safetensors    mean and deviation of the frozen features
                                         config.yaml, state.json
                                         COMPLETE                     size and checksum of each file, written last

``writing.py`` writes them in the background, ``choosing.py`` chooses which one to read, ``folders.py`` removes them.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from pipelines.engine import distributed
from pipelines.engine.internals import MOMENTS, masters, moments, partitions, start_moments, use_weights
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.folders import STATE, STATISTICS
from pipelines.engine.saving.slices import MEND, SliceReader, slice_file
from pipelines.engine.setup import Engine
from vtok.config import ConfigError, require
from vtok.framework import VTokFramework
from vtok.weights import shape_of

WEIGHTS, AVERAGE, RANDOM_STATE = "weights", "ema", "random_state"


@dataclass
class RunState:
    """The state of a run.

    Attributes:
        step: Optimiser steps taken.
        updates: Steps that changed the weights. A step with a loss or gradient that is not finite does not.
        consumed_samples, seed, manifest_hash: The whole state of the data.
        ranks: The number of ranks that wrote the checkpoint.
        shapes: Shapes of the trained parameters, by name.
        frozen: Hashes of the frozen parts' weights, which no checkpoint holds.
        order: Settings that change which sample stands at a position, beside seed and data. Empty if there are none.
        grown: Earlier states of data that have grown: the samples consumed of each by then, and its manifest hash.
        kept: Size and checksum that identify the frozen weights that lie beside the checkpoints (``kept.py``). Empty if
            there are none; None in a checkpoint of an earlier version.
    """

    step: int
    updates: int
    consumed_samples: int
    seed: int
    manifest_hash: str
    ranks: int
    shapes: dict[str, list[int]]
    frozen: dict[str, str]
    order: str = ""
    grown: list[tuple[int, str]] = field(default_factory=list)
    kept: dict[str, int] | None = None


def fresh_state(
    seed: int, manifest_hash: str, ranks: int, model: nn.Module, frozen: dict[str, str], order: str = ""
) -> RunState:
    """Returns the state of a run before its first step."""
    return RunState(0, 0, 0, seed, manifest_hash, ranks, trained_shapes(model), frozen, order)


def trained_shapes(model: nn.Module) -> dict[str, list[int]]:
    """Returns the shapes of the whole trainable parameters, even if ZeRO-3 has sharded them."""
    return {name: list(shape_of(p)) for name, p in model.named_parameters() if p.requires_grad}


def read_state(folder: Path) -> RunState:
    """Reads the state of a checkpoint.

    Raises:
        ConfigError: It cannot be read, or it is of a newer version.
    """
    try:
        return RunState(**json.loads((folder / STATE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{folder / STATE} cannot be read ({error}): {MEND}") from error


def check(folder: Path, expected: RunState, earlier: Collection[str] = (), allow_growth: bool = False) -> RunState:
    """Reads the state of a checkpoint and checks that this run can continue from it.

    Args:
        folder: The checkpoint.
        expected: This run's seed, data, shapes and frozen weights.
        earlier: The manifest hashes that the run's data had before they grew.
        allow_growth: Whether to continue over the grown data. The state then says where they grew.

    Raises:
        ConfigError: The checkpoint is of another model, seed or dataset, or was trained with other frozen weights.
    """
    state = read_state(folder)
    if state.manifest_hash in earlier:
        require(
            allow_growth,
            f"cannot resume {folder}: the data have grown since then; pass --data.allow_growth true to go on over all "
            "of them, or take out what was added",
        )
        state.grown.append((state.consumed_samples, state.manifest_hash))
        state.manifest_hash = expected.manifest_hash
    require_same_shapes(folder, state.shapes, expected.shapes)
    for name, hint in (
        ("seed", "set seed back"),
        ("manifest_hash", "point data.shards or data.mixture at the shards and weights it was trained with"),
        ("order", "set these back, or samples would come twice or never"),
    ):
        was, now = getattr(state, name), getattr(expected, name)
        if was != now:
            shown = ["plain" if value == "" else value for value in (was, now)]
            named = f"its {name} is {shown[0]}, this run's is {shown[1]}"
            raise ConfigError(f"cannot resume {folder}: {named}; {hint}")
    for part, was in state.frozen.items():
        if (now := expected.frozen.get(part)) != was:
            raise ConfigError(
                f"cannot resume {folder}: its {part} had the weights {was}, this run's are {now}; name those it was "
                "trained with"
            )
    return state


def require_same_shapes(folder: Path, stored: dict[str, list[int]], wanted: dict[str, list[int]]) -> None:
    """Raises ConfigError if the shapes differ. The message names one such parameter."""
    for name in sorted(stored.keys() | wanted.keys()):  # every rank names the same one
        if stored.get(name) != wanted.get(name):
            raise ConfigError(
                f"checkpoint {folder} is of another model: {name} is {stored.get(name, 'absent')} there and "
                f"{wanted.get(name, 'absent')} here; use the configuration it was trained with"
            )


@torch.no_grad()
def resume(engine: Engine, ema: Ema | None, folder: Path, state: RunState) -> None:
    """Loads a checkpoint into an engine and its average. All ranks call this; another number may have written it.

    If the checkpoint holds no average, the average starts from its weights.

    Raises:
        ConfigError: A file is damaged.
    """
    if state.updates:
        start_moments(engine, state.updates)
    buffers = {WEIGHTS: masters(engine)}
    if state.updates:
        buffers |= {kind: moments(engine, kind) for kind in MOMENTS}
    if ema:
        buffers[AVERAGE] = ema.buffers

    def read() -> None:
        with SliceReader(folder) as stored:
            for own in partitions(engine):
                for kind, flats in buffers.items():
                    key = f"{kind}/{own.name}"
                    key = key if key in stored else f"{WEIGHTS}/{own.name}"
                    stored.read_into(own.of(flats), key, own.start)
        set_statistics(engine.module, folder)

    distributed.every_rank(read)
    use_weights(engine, masters(engine))
    if state.ranks == distributed.world_size():
        set_random_state(folder)
    distributed.barrier()


def set_random_state(folder: Path) -> None:
    """Restores torch's generators on this rank. Samples' own draws are keyed and do not need it."""
    with safe_open(slice_file(folder, distributed.rank()), framework="pt") as stored:
        torch.set_rng_state(stored.get_tensor(f"{RANDOM_STATE}/cpu"))
        if torch.cuda.is_available() and f"{RANDOM_STATE}/cuda" in stored.keys():
            torch.cuda.set_rng_state(stored.get_tensor(f"{RANDOM_STATE}/cuda"))


@torch.no_grad()
def load_trained(framework: VTokFramework, folder: Path, ema: bool = False) -> int:
    """Loads the trained weights of a checkpoint into a framework that is not sharded. Returns their step.

    Args:
        framework: The framework.
        folder: The checkpoint.
        ema: Whether to load the average of the weights instead.

    Raises:
        ConfigError: The checkpoint is of another model or without an average.
    """
    state = read_state(folder)
    require_same_shapes(folder, state.shapes, trained_shapes(framework))
    with SliceReader(folder) as stored:
        for name, parameter in framework.named_parameters():
            if not parameter.requires_grad:
                continue
            key = f"{AVERAGE if ema else WEIGHTS}/{name}"
            if key not in stored:
                raise ConfigError(f"{folder} holds no EMA: leave out --ema, or train with train.ema_decay set")
            stored.read_into(parameter.view(-1), key, 0)
    set_statistics(framework, folder)
    return state.step


def statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    """Returns the measured statistics of a model: the buffers of its ``measured``."""
    return {name: buffer.cpu().contiguous() for name, buffer in model.measured.named_buffers()}


def stored_statistics(folder: Path) -> dict[str, torch.Tensor]:
    """Reads the statistics of a checkpoint, by name.

    Raises:
        ConfigError: The file is damaged.
    """
    path = folder / STATISTICS
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): {MEND}") from error


def set_statistics(model: nn.Module, folder: Path) -> None:
    for name, value in stored_statistics(folder).items():
        model.measured.get_buffer(name).copy_(value)
