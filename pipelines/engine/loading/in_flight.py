"""The micro-batches that loader processes have prepared, in memory that they share with their rank."""

from collections.abc import Collection

from data_tools.dataset import ClipDataset
from data_tools.errors import BadVideo
from data_tools.video.views import Shape
from pipelines.engine import distributed, shared_memory
from pipelines.engine.loading.workers import AHEAD


def require_room(clips: ClipDataset, micro_batch_size: int, workers: int, loaders: int = 1) -> None:
    """Raises ConfigError if /dev/shm has no room for the micro-batches of this machine's loader processes.

    Args:
        clips: The dataset.
        micro_batch_size: Samples per micro-batch.
        workers: Loader processes per rank and loader.
        loaders: Loaders that run at the same time: training's, and validation's if there is one.
    """
    size = loaders * bytes_in_flight(sample_bytes(clips), micro_batch_size, workers)
    shared_memory.require_room(size, distributed.ranks_here(), "the loader processes", ", or set --data.workers 0")


def bytes_in_flight(sample: int, micro_batch_size: int, workers: int) -> int:
    """Returns the most bytes that a rank's loader processes hold at once.

    These are the prepared micro-batches, one more that each process stacks, and two on the rank: the one that it has
    used and the next.

    Args:
        sample: Bytes per sample.
        micro_batch_size: Samples per micro-batch.
        workers: Loader processes.
    """
    batches = workers * (AHEAD + 1) + 2 if workers else 0
    return batches * micro_batch_size * sample


def sample_bytes(clips: ClipDataset) -> int:
    """Returns the bytes of the largest full-length sample: decoded views, and the stored data that replaces others."""
    stored = stored_bytes(clips) if clips.stored else 0
    return stored + max(decoded_bytes(shape, clips.stored) for shape in clips.shapes)


def decoded_bytes(shape: Shape, stored: Collection[str]) -> int:
    """Returns the bytes of a sample's views, without those that are stored."""
    views = {"frames": shape.tokeniser, "video": shape.decoder}
    decoded = [view for name, view in views.items() if view and name not in stored]
    return sum(3 * view.num_frames * view.height * view.width for view in decoded)


def stored_bytes(clips: ClipDataset) -> int:
    """Returns the bytes of the first readable clip's stored data. Other clips have about as many."""
    for row in range(len(clips)):
        try:
            return sum(map(len, clips.reader.read(row).extras.values()))
        except BadVideo:  # training replaces it and logs it
            continue
    return 0
