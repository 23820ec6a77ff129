"""Loader processes: records the clip that each one reads, so the error can name it if the process dies.

A video decoder can crash without an exception. This is rare, since shards are validated when they are built. The dead
process cannot replace the sample, so the run stops. The error names the clip to remove.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch.utils.data import Dataset, get_worker_info

from data_tools.dataset import ClipDataset
from data_tools.errors import DataError
from data_tools.processes.child import end_with_parent

LOST_CONNECTION = (ConnectionError, FileNotFoundError, EOFError)
STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
GRACE = 0.5  # seconds until a process whose connection broke is known to be dead


class LoaderError(DataError):
    """The loader of one rank cannot continue. The other ranks do not know it."""


class WatchedDataset(Dataset):
    """A dataset whose workers record their positions. A sample may be a DataError, which the trainer raises."""

    def __init__(self, clips: ClipDataset, workers: int):
        self.clips = clips
        self.at = torch.full((workers, 2), -1).share_memory_()  # each worker's process id and position

    def __getitem__(self, position: int):
        if worker := get_worker_info():
            self.at[worker.id] = torch.tensor([os.getpid(), position])
        try:
            return self.clips[position]
        except DataError as error:
            return error

    def dead(self) -> dict[int, int]:
        """Returns the last position of each dead worker, by process id."""
        alive = {process.pid for process in multiprocessing.active_children()}
        return {pid: position for pid, position in self.at.tolist() if pid > 0 and pid not in alive}


@contextmanager
def deaths_explained(dataset: WatchedDataset) -> Iterator[None]:
    """Turns torch's errors about a dead worker into a LoaderError that names its clip.

    torch raises a RuntimeError at any moment, or an error of the connection to the worker.
    """
    try:
        try:
            yield
        except LOST_CONNECTION:
            time.sleep(GRACE)  # else torch's handler of the same death could raise within the code below
            raise
    except (RuntimeError, *LOST_CONNECTION) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        if not (dead := dataset.dead()):
            raise
        silence_children()
        clips = dataset.clips
        held = ", ".join(f"position {at}, clip {clips.reader.key(clips.row(at))}" for at in dead.values())
        raise LoaderError(
            f"a loader process died at {held} (or a substitute of it): check that clip with `vtok-shards verify "
            f"--decode`, and the machine's memory; torch says: {str(error).splitlines()[0]}"
        ) from error


def silence_children() -> None:
    """Stops torch's handler from raising errors when the other workers end, since the run is over."""
    while signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL:
        with suppress(RuntimeError):  # the handler's, for a worker that ended just before
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def ignore_signals(worker: int = 0) -> None:
    """Makes a loader process ignore the job's signals, which its rank handles, and end when its rank ends."""
    signal.set_wakeup_fd(-1)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
