"""Checkpoints: what was trained and where the run stood, readable by any number of ranks, never unpickled.

    OUTPUT/checkpoints/step_00000050/    rank_XXXXX.safetensors       each rank's slices: fp32 weights, AdamW's moments,
                                                                      EMA (frozen weights never), random state
                                         feature_scale.safetensors    mean and deviation of the frozen features
                                         config.yaml, state.json
                                         COMPLETE                     written last

``writing.py`` makes them, in the background.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from pipelines.engine import distributed
from pipelines.engine.internals import MOMENTS, masters, moments, partitions, start_moments, use_weights
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.slices import SliceReader, slice_file
from pipelines.engine.setup import Engine
from vtok.config import ConfigError
from vtok.framework import VTokFramework
from vtok.weights import shape_of

COMPLETE = "COMPLETE"
STATE = "state.json"
STATISTICS = "feature_scale.safetensors"
WEIGHTS, AVERAGE, RANDOM_STATE = "weights", "ema", "random_state"


@dataclass
class RunState:
    """Where a run stands.

    Attributes:
        step: optimiser steps taken.
        updates: those of them that changed the weights; a step whose loss or gradient is not finite does not.
        consumed_samples, seed, manifest_hash: the whole state of the data.
        ranks: that wrote the checkpoint.
        shapes: of the trained parameters, by name.
        frozen: hashes of the frozen parts' weights, which are in no checkpoint.
    """

    step: int
    updates: int
    consumed_samples: int
    seed: int
    manifest_hash: str
    ranks: int
    shapes: dict[str, list[int]]
    frozen: dict[str, str]


def fresh_state(seed: int, manifest_hash: str, ranks: int, model: nn.Module, frozen: dict[str, str]) -> RunState:
    """That of a run before its first step."""
    return RunState(0, 0, 0, seed, manifest_hash, ranks, trained_shapes(model), frozen)


def trained_shapes(model: nn.Module) -> dict[str, list[int]]:
    """Shapes of the trainable parameters, also when ZeRO-3 has sharded them."""
    return {name: list(shape_of(p)) for name, p in model.named_parameters() if p.requires_grad}


def folder_of(output: Path, step: int) -> Path:
    return output / "checkpoints" / f"step_{step:08d}"


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def complete(output: Path) -> list[Path]:
    """A run's complete checkpoints, oldest first; one that was being written when the run died is not among them."""
    return sorted(marker.parent for marker in output.glob(f"checkpoints/step_*/{COMPLETE}"))


def begun(output: Path) -> bool:
    """Whether a run has taken a step there; one that failed before may be started again with other settings."""
    if not os.path.isdir(output):  # which never raises, whatever the name
        return False
    log = output / "log.jsonl"
    return (log.is_file() and log.stat().st_size > 0) or bool(complete(output))


def newest(output: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    return (complete(output) or [None])[-1]


def read_state(folder: Path) -> RunState:
    return RunState(**json.loads((folder / STATE).read_text()))


def check(folder: Path, expected: RunState) -> RunState:
    """The state of a checkpoint that a run can go on from.

    Args:
        expected: this run's seed, data, shapes and frozen weights.

    Raises:
        ConfigError: the checkpoint is of another model, seed or dataset, or was trained beside other frozen weights.
    """
    state = read_state(folder)
    require_same_shapes(folder, state.shapes, expected.shapes)
    for name, hint in (
        ("seed", "set seed back"),
        ("manifest_hash", "point data.shards at the shards it was trained on"),
    ):
        was, now = getattr(state, name), getattr(expected, name)
        if was != now:
            raise ConfigError(f"cannot resume {folder}: its {name} is {was}, this run's is {now}; {hint}")
    for part, was in state.frozen.items():
        if (now := expected.frozen.get(part)) != was:
            raise ConfigError(
                f"cannot resume {folder}: its {part} had the weights {was}, this run's are {now}; name those it was "
                "trained with"
            )
    return state


def require_same_shapes(folder: Path, stored: dict[str, list[int]], wanted: dict[str, list[int]]) -> None:
    """Raises ConfigError naming the first parameter that differs."""
    for name in stored.keys() | wanted.keys():
        if stored.get(name) != wanted.get(name):
            raise ConfigError(
                f"checkpoint {folder} is of another model: {name} is {stored.get(name, 'absent')} there and "
                f"{wanted.get(name, 'absent')} here; use the configuration it was trained with"
            )


@torch.no_grad()
def resume(engine: Engine, ema: Ema | None, folder: Path, state: RunState) -> None:
    """Put a checkpoint into an engine and its average; all ranks call this, however many wrote it.

    An average that the checkpoint does not hold starts from its weights.
    """
    if state.updates:
        start_moments(engine, state.updates)
    buffers = {WEIGHTS: masters(engine)}
    if state.updates:
        buffers |= {kind: moments(engine, kind) for kind in MOMENTS}
    if ema:
        buffers[AVERAGE] = ema.buffers
    with SliceReader(folder) as stored:
        for own in partitions(engine):
            for kind, flats in buffers.items():
                key = f"{kind}/{own.name}"
                key = key if key in stored else f"{WEIGHTS}/{own.name}"
                stored.read_into(own.of(flats), key, own.start)
    use_weights(engine, masters(engine))
    set_statistics(engine.module, folder)
    if state.ranks == distributed.world_size():
        set_random_state(folder)
    distributed.barrier()


def set_random_state(folder: Path) -> None:
    """Torch's generators as they were on this rank. Samples' own draws are keyed and need none of this."""
    with safe_open(slice_file(folder, distributed.rank()), framework="pt") as stored:
        torch.set_rng_state(stored.get_tensor(f"{RANDOM_STATE}/cpu"))
        if torch.cuda.is_available() and f"{RANDOM_STATE}/cuda" in stored.keys():
            torch.cuda.set_rng_state(stored.get_tensor(f"{RANDOM_STATE}/cuda"))


@torch.no_grad()
def load_trained(framework: VTokFramework, output: Path, ema: bool = False) -> int:
    """Put a run's newest trained weights into a framework that is not sharded; returns their step.

    Args:
        ema: their average instead.

    Raises:
        ConfigError: no complete checkpoint, one of another model, or one without an average.
    """
    folder = newest(output)
    if folder is None:
        raise ConfigError(f"{output} holds no complete checkpoint: give the output folder of a training run")
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
    """What a model has measured rather than learned: the buffers of its ``measured``."""
    return {name: buffer.cpu().contiguous() for name, buffer in model.measured.named_buffers()}


def set_statistics(model: nn.Module, folder: Path) -> None:
    for name, value in load_file(folder / STATISTICS).items():
        model.measured.get_buffer(name).copy_(value)
