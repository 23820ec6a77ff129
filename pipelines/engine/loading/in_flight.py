"""The micro-batches that loader processes have prepared, in memory that they share with their rank."""

from collections.abc import Collection

import torch

from data_tools.dataset import ClipDataset
from data_tools.errors import BadVideo
from data_tools.video.views import Shape
from pipelines.engine import distributed, shared_memory
from pipelines.engine.loading.workers import AHEAD, require_socket


def require_room(clips: ClipDataset, micro_batch_size: int, workers: int, loaders: int = 1) -> None:
    """Raises ConfigError if /dev/shm has no room for the micro-batches of this machine's loader processes.

    It does so too if these processes cannot hand over micro-batches.

    Args:
        clips: The dataset.
        micro_batch_size: Samples per micro-batch.
        workers: Loader processes per rank and loader.
        loaders: Loaders that run at the same time: training's, and validation's if there is one.
    """
    if workers:
        require_socket()
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
    return stored + max(
        decoded_bytes(shape, clips.stored) + vector_bytes(clips, shape) + further_bytes(clips, shape)
        for shape in clips.shapes
    )


def further_bytes(clips: ClipDataset, shape: Shape) -> int:
    """Returns the bytes of the frames and motion vectors of further media in the conversation about the most."""
    if "frames" in clips.stored:  # precompute.py leaves such conversations out
        return 0
    one = decoded_bytes(shape, {"video"}) + vector_bytes(clips, shape)
    return (clips.reader.most_media - 1) * one


def decoded_bytes(shape: Shape, stored: Collection[str]) -> int:
    """Returns the bytes of a sample's views, without those that are stored."""
    views = {"frames": shape.tokeniser, "video": shape.decoder}
    decoded = [view for name, view in views.items() if view and name not in stored]
    return sum(3 * view.num_frames * view.height * view.width for view in decoded)


def vector_bytes(clips: ClipDataset, shape: Shape) -> int:
    """Returns the bytes of the motion vectors that a full-length sample gets, if the strategy reads them."""
    vectors_of = getattr(clips.transform, "vectors_of", None)
    if vectors_of is None or "frames" in clips.stored:
        return 0
    one = vectors_of(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    return (shape.tokeniser.num_frames - 1) * one.nbytes


def stored_bytes(clips: ClipDataset) -> int:
    """Returns the bytes of the first readable clip's stored data. Other clips have about as many."""
    for row in range(len(clips)):
        try:
            return sum(map(len, clips.reader.read(row).extras.values()))
        except BadVideo:  # training replaces it and logs it
            continue
    return 0
