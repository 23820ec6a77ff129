"""Writing checkpoints while training goes on.

Training waits only until each rank has copied its slices to host memory; a thread writes them to disk. When every
rank's thread is done, which the ranks tell one another between steps, rank 0 marks the checkpoint complete and removes
those that are no longer kept.
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
from pipelines.engine import distributed
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
from pipelines.engine.saving.partitions import MOMENTS, has_moments, masters, moments, partitions
from pipelines.engine.saving.slices import slice_file, write_slices
from pipelines.engine.setup import Engine
from vtok.config import ConfigError


class Save(NamedTuple):
    """A checkpoint on its way to disk: training waited ``stalled`` seconds; ``result`` is this rank's part of it."""

    folder: Path
    started: float
    stalled: float
    result: Future


class Writer:
    """Writes a run's checkpoints, one at a time; every method is called by all ranks together."""

    def __init__(self, output: Path, config: CheckpointConfig):
        self.output, self.config = output, config
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.saving: Save | None = None
        self.host: dict[str, list[Tensor]] = {}

    def save(self, engine: Engine, ema: Ema | None, state: RunState) -> float:
        """Start writing a checkpoint of this moment, after the one before is done.

        Returns:
            Seconds that training has waited for it.

        Raises:
            ConfigError: that one could not be written.
        """
        started = time.perf_counter()
        self.wait()
        folder = folder_of(self.output, state.step)
        distributed.rank_zero_first(partial(make_empty, folder))
        tensors, starts = self.snapshot(engine, ema)
        write = partial(write_slices, slice_file(folder, distributed.rank()), tensors, starts)
        if distributed.rank() == 0:
            write = partial(write_all, write, folder, statistics(engine.module), state, self.output / "config.yaml")
        waited = time.perf_counter() - started
        self.saving = Save(folder, started, waited, self.thread.submit(write))
        return waited

    def snapshot(self, engine: Engine, ema: Ema | None) -> tuple[dict[str, Tensor], dict[str, int]]:
        """This rank's slices in host memory, "KIND/NAME" each, and where each parameter's slice starts."""
        buffers = {WEIGHTS: masters(engine)}
        if has_moments(engine):
            buffers |= {kind: moments(engine, kind) for kind in MOMENTS}
        if ema:
            buffers[AVERAGE] = ema.buffers
        for kind, flats in buffers.items():
            if kind not in self.host:  # pinned memory is slow to get and is kept
                pinned = torch.cuda.is_available()
                self.host[kind] = [torch.empty_like(flat, device="cpu", pin_memory=pinned) for flat in flats]
            for copy, flat in zip(self.host[kind], flats):
                copy.copy_(flat.detach(), non_blocking=True)
        tensors = {f"{RANDOM_STATE}/cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors[f"{RANDOM_STATE}/cuda"] = torch.cuda.get_rng_state()
            torch.cuda.synchronize()
        own = partitions(engine)
        tensors |= {f"{kind}/{one.name}": one.of(self.host[kind]) for kind in buffers for one in own}
        return tensors, {one.name: one.start for one in own}

    def poll(self) -> None:
        """Between steps: complete the checkpoint if all ranks have written their parts of it.

        Raises:
            ConfigError: a rank could not write; the checkpoints before are untouched.
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
        """Return when the checkpoint being written, if any, is complete.

        Raises:
            ConfigError: a rank could not write.
        """
        if self.saving is not None:
            self.saving.result.exception()  # waits
            distributed.barrier()
            self.poll()
            distributed.barrier()

    def give_up(self, folder: Path, result: Future) -> None:
        """Say on every rank what went wrong on the first that failed, and leave nothing half-written."""
        error = result.exception() if result.done() else None
        reasons = distributed.gather_lists([error and str(error)])
        reason = next(text for (text,) in reasons if text)
        if distributed.rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
        kept = complete(self.output)
        last = f"; {kept[-1]} is complete: --resume auto goes on from there" if kept else ""
        raise ConfigError(f"cannot write the checkpoint {folder}: {reason}: make room or change --output{last}")


def make_empty(folder: Path) -> None:
    """An empty folder; raises ConfigError if it cannot be made."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"cannot write the checkpoint {folder}: {error.strerror}") from error


def write_all(write, folder: Path, statistics: dict[str, Tensor], state: RunState, config: Path) -> None:
    """Rank 0's part: its slices (``write``), and what there is once."""
    write()
    save_file(statistics, folder / STATISTICS)
    (folder / STATE).write_text(json.dumps(asdict(state)))
    shutil.copyfile(config, folder / "config.yaml")


def mark_complete(folder: Path, times: dict[str, float]) -> None:
    """Put the marker in place, for good when this returns."""
    part = folder / f"{COMPLETE}.part"
    with part.open("w") as file:
        file.write(json.dumps(times))
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / COMPLETE)


def remove_old(output: Path, config: CheckpointConfig) -> None:
    """Keep the latest ``keep`` checkpoints and those of every ``keep_every``-th step, and nothing a dead run left."""
    kept = complete(output)
    for folder in kept[: -config.keep]:
        if config.keep_every is None or step_of(folder) % config.keep_every:
            (folder / COMPLETE).unlink()
    for folder in folder_of(output, 0).parent.glob("step_*"):
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder)
