"""Loader processes: what each is working on, so that its end can be explained, and their errors in one line.

A video decoder can crash in a way that no exception tells of. Shards are validated when they are built, so this is
rare; when it happens the run stops, since a sample cannot be replaced by a process that no longer exists, and names
the clip to take out.
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
    """The loader of one rank cannot go on; the other ranks know nothing of it."""


class WatchedDataset(Dataset):
    """A dataset whose workers leave word of where they are. Its samples may be DataErrors, for the trainer to raise."""

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
        """Process id → the position it took up last, of the workers that are no more."""
        alive = {process.pid for process in multiprocessing.active_children()}
        return {pid: position for pid, position in self.at.tolist() if pid > 0 and pid not in alive}


@contextmanager
def deaths_explained(dataset: WatchedDataset) -> Iterator[None]:
    """Turns what torch raises when a worker dies into a LoaderError that names its clip.

    That is a RuntimeError, at any moment, or an error of the connection on which the worker's last batch was to come.
    """
    try:
        try:
            yield
        except LOST_CONNECTION:
            time.sleep(GRACE)  # torch's handler of the same death would else raise in the midst of what follows
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
    """The run is over: let the ends of the other workers raise nothing more, as torch's handler does, anywhere."""
    while signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL:
        with suppress(RuntimeError):  # the handler's, for an end that was noted just before
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def ignore_signals(worker: int = 0) -> None:
    """For a loader process: what reaches the whole job is for its rank to decide, and it ends when its rank does."""
    signal.set_wakeup_fd(-1)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
