"""Writes checkpoints while training continues.

Training waits only until each rank has copied its slices to host memory. The run allocates this memory before its first
step. A thread writes the copies to disk. Between steps the ranks tell each other whether their threads are done. When
all are, rank 0 marks the checkpoint complete and removes old ones.
"""

import json
import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from pipelines.config import CheckpointConfig
from pipelines.engine import distributed, host_memory
from pipelines.engine.internals import MOMENTS, has_moments, masters, moments, partitions
from pipelines.engine.saving import host_buffers
from pipelines.engine.saving.checkpoint import (
    AVERAGE,
    COMPLETE,
    RANDOM_STATE,
    STATE,
    STATISTICS,
    WEIGHTS,
    RunState,
    complete,
    folder_of,
    statistics,
    step_of,
)
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.slices import slice_file, write_slices
from pipelines.engine.setup import Engine
from vtok.config import ConfigError


class Save(NamedTuple):
    """A checkpoint that is being written. Training waited ``stalled`` seconds. ``result`` is this rank's part."""

    folder: Path
    started: float
    stalled: float
    result: Future


class Writer:
    """Writes a run's checkpoints, one at a time. All ranks construct it and call its methods together.

    Args:
        output: The run's folder.
        config: The settings.
        engine: Its weights and moments are written.
        ema: Its average is written, if there is one.

    Raises:
        ConfigError: There is not enough host memory for the copies.
    """

    def __init__(self, output: Path, config: CheckpointConfig, engine: Engine, ema: Ema | None):
        self.output, self.config, self.engine, self.ema = output, config, engine, ema
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.saving: Save | None = None
        kinds = (WEIGHTS, *MOMENTS) + (AVERAGE,) * (ema is not None)
        self.host = host_copies(masters(engine), kinds)

    def save(self, state: RunState) -> float:
        """Starts to write a checkpoint of the present state, when the previous one is done.

        Returns:
            Seconds that training waited.

        Raises:
            ConfigError: The previous checkpoint could not be written.
        """
        started = time.perf_counter()
        self.wait()
        folder = folder_of(self.output, state.step)
        distributed.rank_zero_first(partial(make_empty, folder))
        tensors, starts = self.snapshot()
        write = partial(write_slices, slice_file(folder, distributed.rank()), tensors, starts)
        if distributed.rank() == 0:
            measured = statistics(self.engine.module)
            write = partial(write_all, write, folder, measured, state, self.output / "config.yaml")
        waited = time.perf_counter() - started
        self.saving = Save(folder, started, waited, self.thread.submit(write))
        return waited

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Copies this rank's slices to host memory. Returns them by "KIND/NAME", and the start of each parameter's."""
        buffers = {WEIGHTS: masters(self.engine)}
        if has_moments(self.engine):
            buffers |= {kind: moments(self.engine, kind) for kind in MOMENTS}
        if self.ema:
            buffers[AVERAGE] = self.ema.buffers
        for kind, flats in buffers.items():
            for copy, flat in zip(self.host[kind], flats):
                copy.copy_(flat.detach(), non_blocking=True)
        tensors = {f"{RANDOM_STATE}/cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors[f"{RANDOM_STATE}/cuda"] = torch.cuda.get_rng_state()
            torch.cuda.synchronize()
        own = partitions(self.engine)
        tensors |= {f"{kind}/{one.name}": one.of(self.host[kind]) for kind in buffers for one in own}
        return tensors, {one.name: one.start for one in own}

    def poll(self) -> None:
        """Completes the checkpoint if all ranks have written their parts. Called between steps.

        Raises:
            ConfigError: A rank could not write. Earlier checkpoints are intact.
        """
        if self.saving is None:
            return
        folder, started, stalled, result = self.saving
        done, failed = result.done(), result.done() and result.exception() is not None
        flags = torch.tensor([float(not done), float(failed)], device=distributed.device())
        someone_writes, someone_failed = distributed.reduce_over_ranks(flags, dist.ReduceOp.MAX).tolist()
        if someone_failed:
            self.saving = None
            self.give_up(folder, result)
        elif not someone_writes:
            self.saving = None
            times = dict(seconds=round(time.perf_counter() - started, 3), stalled=round(stalled, 3))
            if distributed.rank() == 0:
                mark_complete(folder, times)
                remove_old(self.output, self.config)

    def wait(self) -> None:
        """Waits until the checkpoint that is being written, if any, is complete.

        Raises:
            ConfigError: A rank could not write.
        """
        if self.saving is not None:
            self.saving.result.exception()  # waits
            distributed.barrier()
            self.poll()
            distributed.barrier()

    def give_up(self, folder: Path, result: Future) -> None:
        """Removes the incomplete checkpoint and raises, on every rank, the error of the first rank that failed."""
        error = result.exception() if result.done() else None
        reasons = distributed.gather_lists([error and str(error)])
        reason = next(text for (text,) in reasons if text)
        if distributed.rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
        kept = complete(self.output)
        last = f"; {kept[-1]} is complete: --resume auto goes on from there" if kept else ""
        raise ConfigError(f"cannot write the checkpoint {folder}: {reason}: make room or change --output{last}")


def host_copies(flats: list[Tensor], kinds: tuple[str, ...]) -> dict[str, list[Tensor]]:
    """Allocates host memory for a copy of every kind of flat buffer. All ranks call this.

    Args:
        flats: The flat buffers of the masters. Each kind has their layout.
        kinds: The kinds.

    Raises:
        ConfigError: There is not enough memory.
    """
    sizes = [flat.numel() for flat in flats]
    distributed.every_rank(partial(require_room, host_buffers.pinned_bytes(sizes * len(kinds))))
    take = partial(host_buffers.take, sizes * len(kinds), pin=flats[0].device.type == "cuda")
    copies = iter(distributed.every_rank(take))
    return {kind: [next(copies) for _ in flats] for kind in kinds}


def require_room(size: int) -> None:
    """Raises ConfigError unless this machine has ``size`` bytes of host memory for each of its ranks."""
    ranks, available = distributed.ranks_here(), host_memory.available()
    if ranks * size > available:
        raise ConfigError(
            f"checkpoints are copied to host memory before they are written: {ranks} x {size / 1e9:.1f} GB on this "
            f"machine, of which {available / 1e9:.1f} GB are available: use more machines or ranks, or keep no average "
            "(train.ema_decay null)"
        )


def make_empty(folder: Path) -> None:
    """Makes an empty folder; raises ConfigError if that fails."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"cannot write the checkpoint {folder}: {error.strerror}") from error


def write_all(write, folder: Path, statistics: dict[str, Tensor], state: RunState, config: Path) -> None:
    """Writes rank 0's part: its slices (``write``), and the files that exist once."""
    write()
    save_file(statistics, folder / STATISTICS)
    (folder / STATE).write_text(json.dumps(asdict(state)))
    shutil.copyfile(config, folder / "config.yaml")


def mark_complete(folder: Path, times: dict[str, float]) -> None:
    """Writes the marker. It is on disk when this returns."""
    part = folder / f"{COMPLETE}.part"
    with part.open("w") as file:
        file.write(json.dumps(times))
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / COMPLETE)


def remove_old(output: Path, config: CheckpointConfig) -> None:
    """Keeps the latest ``keep`` checkpoints and those of every ``keep_every``-th step. Removes incomplete ones too."""
    kept = complete(output)
    for folder in kept[: -config.keep]:
        if config.keep_every is None or step_of(folder) % config.keep_every:
            (folder / COMPLETE).unlink()
    for folder in folder_of(output, 0).parent.glob("step_*"):
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder)
