"""What loader processes hold ready for their rank, in memory that they share with it."""

from data_tools.dataset import ClipDataset
from data_tools.errors import BadVideo
from pipelines.engine import distributed, shared_memory

# Micro-batches that each loader process is ahead.
PREFETCH = 4


def require_room(clips: ClipDataset, micro_batch_size: int, workers: int, loaders: int = 1) -> None:
    """Raise ConfigError if /dev/shm has no room for the micro-batches of this machine's loader processes.

    Args:
        workers: loader processes of a rank.
        loaders: so many times these, where validation's work beside training's.
    """
    size = loaders * bytes_in_flight(sample_bytes(clips), micro_batch_size, workers)
    shared_memory.require_room(size, distributed.ranks_here(), "the loader processes", ", or set --data.workers 0")


def bytes_in_flight(sample: int, micro_batch_size: int, workers: int) -> int:
    """The most that a rank's loader processes hold at once: what is ahead, one more that each is stacking out of its
    samples, the one that the rank has worked on, and the one it takes up.

    Args:
        sample: bytes of one.
    """
    batches = workers * (PREFETCH + 1) + 2 if workers else 0
    return batches * micro_batch_size * sample


def sample_bytes(clips: ClipDataset) -> int:
    """Bytes of a full-length sample's tensors: decoded views, and what is stored in the place of others."""
    views = {"frames": clips.tokeniser_view, "video": clips.decoder_view}
    decoded = [view for name, view in views.items() if view and name not in clips.stored]
    stored = stored_bytes(clips) if clips.stored else 0
    return stored + sum(3 * view.num_frames * view.height * view.width for view in decoded)


def stored_bytes(clips: ClipDataset) -> int:
    """Of the first readable clip; those of the others are about as many."""
    for row in range(len(clips)):
        try:
            return sum(map(len, clips.reader.read(row).extras.values()))
        except BadVideo:  # training replaces it and says so
            continue
    return 0
