"""Writes checkpoints while training continues.

Training waits only until each rank has copied its slices to host memory. The run allocates this memory before its first
step. A thread writes the copies to disk and takes the checksums of its files. Between steps the ranks tell each other
whether their threads are done. When all are, rank 0 marks the checkpoint complete and removes old ones.
"""

import json
import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from pipelines.cli.steps import folder_of
from pipelines.config import CheckpointConfig
from pipelines.engine import distributed, host_memory
from pipelines.engine.internals import MOMENTS, has_moments, masters, moments, partitions
from pipelines.engine.saving import host_buffers
from pipelines.engine.saving.checkpoint import AVERAGE, RANDOM_STATE, WEIGHTS, RunState, statistics
from pipelines.engine.saving.choosing import seal
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.folders import COMPLETE, CONFIG, STATE, STATISTICS, complete, erase, make_empty
from pipelines.engine.saving.rotation import remove_old
from pipelines.engine.saving.slices import flush, slice_file, write_slices
from pipelines.engine.setup import Engine
from vtok.config import ConfigError


class Save(NamedTuple):
    """A checkpoint that is being written. Training waited ``stalled`` seconds.

    ``result`` gives the size and checksum of each file that this rank has written, by name.
    """

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

    Attributes:
        rotates: Whether a checkpoint that is completed makes old ones go. Set to false after a step that was dropped,
            since the new checkpoint may then be one to go back from.

    Raises:
        ConfigError: There is not enough host memory for the copies.
    """

    def __init__(self, output: Path, config: CheckpointConfig, engine: Engine, ema: Ema | None):
        self.output, self.config, self.engine, self.ema = output, config, engine, ema
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.saving: Save | None = None
        self.rotates = True
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
        distributed.rank_zero_first(partial(begin, folder))
        tensors, starts = self.snapshot()
        write = partial(write_own, slice_file(folder, distributed.rank()), tensors, starts)
        if distributed.rank() == 0:
            measured = statistics(self.engine.module)
            write = partial(write_all, write, folder, measured, state, self.output / CONFIG)
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
            seals = distributed.gather_lists(list(result.result().items()))
            if distributed.rank() == 0:
                mark_complete(folder, times | {"files": dict(sum(seals, []))})
                if self.rotates:
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
            with suppress(OSError):
                erase(folder)
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


def begin(folder: Path) -> None:
    """Makes an empty folder; raises ConfigError if that fails."""
    try:
        make_empty(folder)
    except OSError as error:
        raise ConfigError(f"cannot write the checkpoint {folder}: {error.strerror}") from error


def write_own(path: Path, tensors: dict[str, Tensor], starts: dict[str, int]) -> dict[str, dict[str, int]]:
    """Writes a rank's slices; returns size and checksum of the file by its name."""
    write_slices(path, tensors, starts)
    return {path.name: seal(path)}


def write_all(write, folder: Path, statistics: dict[str, Tensor], state: RunState, config: Path) -> dict:
    """Writes rank 0's part: its slices (``write``), and the files that exist once. All are on disk when this returns.

    Returns:
        Size and checksum of each of these files, by name.
    """
    seals = write()
    save_file(statistics, folder / STATISTICS)
    (folder / STATE).write_text(json.dumps(asdict(state)))
    shutil.copyfile(config, folder / CONFIG)
    for name in (STATISTICS, STATE, CONFIG):
        flush(folder / name)
        seals[name] = seal(folder / name)
    flush(folder)
    return seals


def mark_complete(folder: Path, content: dict) -> None:
    """Writes the marker. It is on disk when this returns."""
    part = folder / f"{COMPLETE}.part"
    part.write_text(json.dumps(content))
    flush(part)
    os.replace(part, folder / COMPLETE)
    flush(folder)
    flush(folder.parent)
