"""Loader processes: they prepare micro-batches in advance, and one that dies or hangs is replaced.

A video decoder can crash without an exception or never return, and the system can kill a process. The rank then starts
another process, which repeats what the other had not delivered: the samples stay the same. If a second process dies or
hangs at the same sample, the sample's clip counts as bad, and a drawn substitute takes its place (see
:mod:`data_tools.dataset`). If three in a row die or hang between two samples, no clip is at fault, and the run ends.
"""

import os
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from multiprocessing.connection import Listener
from typing import Any, Protocol, TypeVar

import torch

from data_tools.errors import DataError
from data_tools.processes.child import Child, ChildDied, ChildTimedOut, Undelivered, end_with_parent
from data_tools.streaming.memory import share_memory
from pipelines.engine import shared_memory
from vtok.config import ConfigError

M = TypeVar("M")

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
AHEAD = 4  # micro-batches that each loader process is asked for in advance
PATIENCE = 150.0  # seconds without progress after which a loader process that is waited for counts as hung
TICK = 0.5  # seconds between two looks at its progress
MOST_DEATHS = 3  # processes in a row that may end between two samples

# What helps if tensors cannot be handed over.
OTHER_TMPDIR = "set TMPDIR to a folder with a short path and free space, or set --data.workers 0"


class Items(Protocol):
    """A dataset of items by position, such as :class:`data_tools.dataset.ClipDataset`.

    Attributes:
        reader: The clips, whose ``key(row)`` names one.
        crashes: For a position: how many of its clips, the first ones, count as bad.
    """

    reader: Any
    crashes: dict[int, int]

    def __getitem__(self, position: int) -> Any: ...

    def row(self, position: int) -> int: ...


class LoaderError(DataError):
    """The loader of one rank cannot continue. The other ranks do not know it."""


def read_ahead(
    dataset: Items,
    requests: Iterable[list[int]],
    workers: int,
    collate: Callable[[list], M],
    patience: float = PATIENCE,
) -> Iterator[M]:
    """Yields a micro-batch for each list of positions, in order.

    Args:
        dataset: Gives the item at a position.
        requests: Positions of each micro-batch.
        workers: Loader processes. With 0 this process reads.
        collate: Makes a micro-batch of the items at some positions.
        patience: Seconds for which the rank waits for a process that stays at one sample.

    Raises:
        LoaderError: A clip and all its substitutes are bad, shards cannot be read, /dev/shm is full, or the processes
            cannot hand over what they have read.
    """
    if not workers:
        yield from map(Reader(dataset, collate, patience).read, requests)
        return
    left = iter(requests)
    readers = [Reader(dataset, collate, patience) for _ in range(workers)]
    try:
        for reader, positions in zip(cycle(readers), islice(left, workers * AHEAD)):
            reader.ask(positions)
        for reader in cycle(readers):
            if not reader.asked:
                return
            micro_batch = reader.take()
            for positions in islice(left, 1):
                reader.ask(positions)
            yield micro_batch
    finally:
        for reader in readers:
            reader.close()


class Reader:
    """Reads micro-batches, in a loader process of its own where they are asked for in advance.

    Args:
        dataset: Gives the item at a position.
        collate: Makes a micro-batch of some items.
        patience: As in :func:`read_ahead`.

    Attributes:
        asked: Positions of the micro-batches that were asked for and not yet taken.
    """

    def __init__(self, dataset: Items, collate: Callable[[list], M], patience: float):
        self.dataset, self.collate, self.patience = dataset, collate, patience
        self.asked: deque[list[int]] = deque()
        self.deaths: Counter[int] = Counter()
        self._deaths_between = 0  # between two samples, since the latest micro-batch
        self._at = torch.full((1,), -1).share_memory_()  # the position that the process reads
        self._child: Child | None = None

    def ask(self, positions: list[int]) -> None:
        """Has the process prepare a micro-batch."""
        self._child = self._child or Child(self._answer, prepare_process)
        self.asked.append(positions)
        self._child.send(positions)

    def take(self) -> M:
        """Returns the earliest micro-batch that was asked for. Replaces the process if it has died or hangs.

        Raises:
            LoaderError: As in :func:`read_ahead`.
        """
        while True:
            assert self._child is not None  # there was a request
            try:
                self._await(self._child)
                answer = self._child.receive()
            except ChildDied as death:
                self._replace(death)
                continue
            except Undelivered as reason:
                raise LoaderError(
                    f"a loader process cannot hand over what it has read ({reason}): {OTHER_TMPDIR}"
                ) from reason
            self.asked.popleft()
            self._deaths_between = 0
            if isinstance(answer, LoaderError):
                raise answer
            return answer

    def read(self, positions: list[int]) -> M:
        """Reads a micro-batch in this process.

        Raises:
            LoaderError: As in :func:`read_ahead`.
        """
        try:
            return self.collate([self._item(position) for position in positions])
        except DataError as error:
            raise LoaderError(str(error)) from error

    def close(self) -> None:
        """Ends the process."""
        if self._child:
            self._child.close()

    def _await(self, child: Child) -> None:
        """Waits until the process has an answer or has died.

        Raises:
            ChildTimedOut: It has stayed at one sample, or between two, for ``patience`` seconds; it is closed.
        """
        at, since = int(self._at.item()), time.monotonic()
        while not child.has_answer(TICK):
            before, at = at, int(self._at.item())
            if at != before:
                since = time.monotonic()
            elif time.monotonic() - since >= self.patience:
                child.close()
                raise ChildTimedOut(f"no progress for {self.patience:g} s")

    def _answer(self, positions: list[int]) -> M | LoaderError:
        try:
            return self.read(positions)
        except LoaderError as error:
            return error
        except Exception:
            traceback.print_exc()  # the rank raises the error, without this process's traceback
            raise

    def _item(self, position: int):
        self._at[0] = position
        try:
            return self.dataset[position]
        finally:
            self._at[0] = -1

    def _replace(self, death: ChildDied) -> None:
        """Starts another process and asks it for what the dead one had not delivered.

        Raises:
            LoaderError: Another process would not help.
        """
        position = int(self._at.item())
        if signal.SIGBUS.name in str(death):
            raise LoaderError(
                f"a loader process ended with a bus error: {shared_memory.FOLDER} is full, or a file was cut while it "
                "was read; give the container more (docker run --shm-size), or set --data.workers 0"
            )
        then = "between two samples: another one goes on"
        if position >= 0:
            self.deaths[position] += 1
            bad = self.dataset.crashes[position] = self.deaths[position] - 1
            key = self.dataset.reader.key(self.dataset.row(position))
            fate = "a substitute takes its place" if bad else "it is read again"
            then = f"at position {position}, clip {key}: {fate}"
        else:
            self._deaths_between += 1
            if self._deaths_between == MOST_DEATHS:
                raise LoaderError(
                    f"{MOST_DEATHS} loader processes in a row ended between two samples ({death}): the lines above may "
                    "tell why, or the machine may lack memory; with --data.workers 0 the rank itself reads"
                )
        rank = os.environ.get("RANK", "0")
        end = "hangs" if isinstance(death, ChildTimedOut) else "died"
        print(f"warning: rank {rank}: a loader process {end} ({death}) {then}", file=sys.stderr, flush=True)
        self._at[0] = -1
        self._child = Child(self._answer, prepare_process)
        for positions in self.asked:
            self._child.send(positions)


def require_socket() -> None:
    """Checks that a loader process can make the socket through which it hands over tensors.

    Raises:
        ConfigError: It cannot, for example because the path of TMPDIR is too long.
    """
    try:
        Listener(family="AF_UNIX").close()
    except OSError as error:
        raise ConfigError(
            f"loader processes cannot make a socket in the folder for temporary files ({error}): {OTHER_TMPDIR}"
        ) from error


def prepare_process() -> None:
    """Sets up a loader process: tensors in shared memory, and the job's signals left to its rank."""
    ignore_signals()
    share_memory()


def ignore_signals() -> None:
    """Makes a loader process ignore the job's signals, which its rank handles, and end when its rank ends."""
    signal.set_wakeup_fd(-1)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
