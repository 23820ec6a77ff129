"""Writes checkpoints while training continues.

Training waits only until each rank has copied its slices to host memory. The run allocates this memory before its first
step. A thread writes the copies to disk and takes the checksums of its files. Between steps the ranks tell each other
whether their threads are done. When all are, rank 0 marks the checkpoint complete and removes old ones.

If the disk is full, the threads try again while training continues. If it still is when the next checkpoint is due, the
run goes on without this one, and earlier ones stay. ``MOST_UNSAVED`` in a row end the run.
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
from threading import Event
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.cli.steps import folder_of
from pipelines.config import CheckpointConfig
from pipelines.engine import distributed, host_memory
from pipelines.engine.internals import MOMENTS, has_moments, masters, moments, partitions
from pipelines.engine.saving import host_buffers
from pipelines.engine.saving.checkpoint import AVERAGE, RANDOM_STATE, WEIGHTS, RunState, statistics
from pipelines.engine.saving.choosing import seal
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.folders import COMPLETE, CONFIG, STATE, STATISTICS, clear, complete, erase
from pipelines.engine.saving.persistent import Unsaved, say, until_written, words
from pipelines.engine.saving.rotation import remove_old
from pipelines.engine.saving.slices import flush, slice_file, write_slices, write_tensors
from pipelines.engine.setup import Engine
from vtok.config import ConfigError

MOST_UNSAVED = 3  # checkpoints in a row that could not be written; they end the run
TICK = 0.05  # seconds between two looks at a checkpoint that is waited for


class Save(NamedTuple):
    """A checkpoint that is being written. Training waited ``stalled`` seconds.

    ``result`` gives the size and checksum of each file that this rank has written, by name. Once ``last_try`` is set,
    no error of the disk is waited out any more.
    """

    folder: Path
    started: float
    stalled: float
    result: Future
    last_try: Event


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
        self.unsaved = 0  # checkpoints in a row that could not be written
        self.rotates = True
        kinds = (WEIGHTS, *MOMENTS) + (AVERAGE,) * (ema is not None)
        self.host = host_copies(masters(engine), kinds)

    def save(self, state: RunState) -> float:
        """Starts to write a checkpoint of the present state, when the previous one is done or given up.

        Returns:
            Seconds that training waited.

        Raises:
            Unsaved: This is the last of ``MOST_UNSAVED`` checkpoints in a row that could not be written.
            ConfigError: The previous checkpoint could not be written for another reason than the disk.
        """
        started = time.perf_counter()
        self.wait()
        folder = folder_of(self.output, state.step)
        try:
            distributed.rank_zero_first(partial(clear, folder))
        except OSError as error:
            self.go_without(folder, words(error))
            return time.perf_counter() - started
        tensors, starts = self.snapshot()
        write = partial(write_own, slice_file(folder, distributed.rank()), tensors, starts)
        if distributed.rank() == 0:
            measured = statistics(self.engine.module)
            write = partial(write_all, write, folder, measured, state, self.output / CONFIG)
        last_try = Event()
        result = self.thread.submit(until_written, write, f"the checkpoint {folder}", last_try)
        waited = time.perf_counter() - started
        self.saving = Save(folder, started, waited, result, last_try)
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

    def poll(self, last_try: bool = False) -> None:
        """Completes the checkpoint if all ranks have written their parts. Called between steps.

        Args:
            last_try: Whether any rank waits no longer for room on the disk. The others then wait no longer either.

        Raises:
            Unsaved, ConfigError: As in :meth:`save`. Earlier checkpoints are intact.
        """
        if self.saving is None:
            return
        folder, started, stalled, result, last = self.saving
        writes, failed = not result.done(), result.done() and result.exception() is not None
        flags = torch.tensor([writes, failed, last_try], dtype=torch.float32, device=distributed.device())
        writes, failed, last_try = map(bool, distributed.reduce_over_ranks(flags, dist.ReduceOp.MAX).tolist())
        if failed or last_try:
            last.set()
        if writes:
            return
        if failed:
            self.give_up(folder, result.exception())
            return
        times = dict(seconds=round(time.perf_counter() - started, 3), stalled=round(stalled, 3))
        seals = distributed.gather_lists(list(result.result().items()))
        try:
            distributed.rank_zero_first(lambda: self.complete(folder, times | {"files": dict(sum(seals, []))}))
        except OSError as error:
            if last_try:
                self.give_up(folder, error)
            return
        self.saving, self.unsaved = None, 0
        if self.rotates and distributed.rank() == 0:
            remove_old(self.output, self.config)

    def complete(self, folder: Path, content: dict) -> None:
        """Marks a checkpoint complete. The run's logs are on disk before: a resumed run does not write them again."""
        for log in sorted(self.output.glob("*.jsonl")):
            flush(log)
        mark_complete(folder, content)

    def wait(self, patience: float = 0.0) -> None:
        """Waits until the checkpoint that is being written, if any, is complete or given up.

        Args:
            patience: Seconds for which it waits for room on a full disk.

        Raises:
            Unsaved, ConfigError: As in :meth:`save`.
        """
        latest = time.monotonic() + patience
        while self.saving is not None:
            self.poll(last_try=time.monotonic() >= latest)
            time.sleep(TICK)
        distributed.barrier()

    def finish(self, patience: float) -> None:
        """Waits for the run's last checkpoint.

        Args:
            patience: As in :meth:`wait`.

        Raises:
            Unsaved: It could not be written.
            ConfigError: As in :meth:`save`.
        """
        self.wait(patience)
        if self.unsaved:
            raise Unsaved(f"the last checkpoint could not be written: {self.newest()}")

    def give_up(self, folder: Path, error: BaseException | None) -> None:
        """Ends the writing of a checkpoint whose files cannot be written.

        Args:
            folder: The checkpoint.
            error: This rank's error, if any.

        Raises:
            Unsaved, ConfigError: As in :meth:`save`.
        """
        self.saving = None
        errors = distributed.gather_lists([(words(error), isinstance(error, OSError))] if error else [])
        (reason, of_the_disk), *_ = sum(errors, [])
        if distributed.rank() == 0:
            with suppress(OSError):
                erase(folder)
        if not of_the_disk:
            raise ConfigError(f"cannot write the checkpoint {folder}: {reason}; {self.newest()}")
        self.go_without(folder, reason)

    def go_without(self, folder: Path, reason: str) -> None:
        """Says that the run goes on without a checkpoint; raises Unsaved if there were too many."""
        self.unsaved += 1
        text = f"the checkpoint {folder} could not be written ({reason})"
        if self.unsaved >= MOST_UNSAVED:
            raise Unsaved(f"{text}, the last of {self.unsaved} in a row: make room; {self.newest()}")
        if distributed.rank() == 0:
            say(f"warning: {text}: make room; {self.newest()} ({self.unsaved} of {MOST_UNSAVED} in a row end the run)")

    def newest(self) -> str:
        """Names the run's newest checkpoint, in words."""
        kept = complete(self.output)
        return f"{kept[-1]} is complete: --resume auto goes on from there" if kept else "there is none yet"


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


def write_own(path: Path, tensors: dict[str, Tensor], starts: dict[str, int]) -> dict[str, dict[str, int]]:
    """Writes a rank's slices, and makes the folder first; returns size and checksum of the file by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_slices(path, tensors, starts)
    return {path.name: seal(path)}


def write_all(write, folder: Path, statistics: dict[str, Tensor], state: RunState, config: Path) -> dict:
    """Writes rank 0's part: its slices (``write``), and the files that exist once. All are on disk when this returns.

    Returns:
        Size and checksum of each of these files, by name.
    """
    seals = write()
    write_tensors(folder / STATISTICS, statistics)
    (folder / STATE).write_text(json.dumps(asdict(state)))
    shutil.copyfile(config, folder / CONFIG)
    for name in (STATISTICS, STATE, CONFIG):
        flush(folder / name)
        seals[name] = seal(folder / name)
    flush(folder)
    return seals


def mark_complete(folder: Path, content: dict) -> None:
    """Writes the marker. It is on disk when this returns, and so are the names of the folders that lead to it."""
    part = folder / f"{COMPLETE}.part"
    part.write_text(json.dumps(content))
    flush(part)
    os.replace(part, folder / COMPLETE)
    for place in (folder, folder.parent, folder.parent.parent):
        flush(place)
