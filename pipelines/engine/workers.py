"""Loader processes: what each is working on, so that its end can be explained, and their errors in one line.

A video decoder can crash in a way that no exception tells of. Shards are validated when they are built, so this is
rare; when it happens the run stops, since a sample cannot be replaced by a process that no longer exists, and names
the clip to take out.
"""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import Dataset, get_worker_info

from data_tools.dataset import ClipDataset
from data_tools.errors import DataError


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

    def position_of(self, process: int) -> int | None:
        """The position that a worker process took up last."""
        return next((position for pid, position in self.at.tolist() if pid == process), None)


@contextmanager
def deaths_explained(dataset: WatchedDataset) -> Iterator[None]:
    """Turns torch's error for a dead worker, which can come at any moment, into a LoaderError that names its clip."""
    try:
        yield
    except RuntimeError as error:
        found = re.search(r"DataLoader worker \(pid(?:\(s\))? (\d+).*?\) (.*?)[. ]*$", str(error).splitlines()[0])
        if not found:
            raise
        # The run is over; torch would raise again, anywhere, when the other workers end.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        position = dataset.position_of(int(found[1]))
        if position is None:
            held = "at its start"
        else:
            clips = dataset.clips
            held = f"at position {position}, clip {clips.reader.key(clips.order.row(position))} or a substitute of it"
        raise LoaderError(
            f"a loader process {found[2]} {held}: check that clip with `vtok-shards verify --decode`, and the "
            "machine's memory"
        ) from error
