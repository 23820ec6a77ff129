"""The order of samples: pure arithmetic, so that a run can stop anywhere and go on anywhere.

The story, from the dataset to one rank's micro-batch:

1. `epoch_order`: the rows of the dataset in the order of one epoch, a function of (seed, epoch, shard sizes).
   Shards are permuted, their rows laid on one axis, the axis cut into a few equal *canonical streams*, each stream
   shuffled inside blocks, the streams interleaved. A reader thus meets few shards at a time, yet neighbours come
   from far apart.
2. `RunOrder`: the run is one endless sequence; position p is place p mod N of epoch p div N. Batches are always
   full and may span epochs.
3. `RunSampler`: global batch k is the positions [k·G, (k+1)·G), dealt to accumulation steps and ranks. The set and
   the order of a batch do not depend on the number of ranks, so the whole state of the order is the number of
   samples consumed.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from .draws import keyed_seed
from .errors import DataError

CACHED_EPOCHS = 2  # workers that prefetch across the end of an epoch alternate between two


def epoch_order(seed: int, epoch: int, shard_sizes: Sequence[int], streams: int = 8, block: int = 4096) -> np.ndarray:
    """Row numbers of one epoch, int64 (N,): a permutation of 0 … N−1 with N = sum(shard_sizes).

    `streams` and `block` are part of the order: another value is another order. A dataset of at most
    `streams · block` rows is shuffled whole.
    """
    sizes = np.asarray(shard_sizes, dtype=np.int64)
    first_row = np.cumsum(sizes) - sizes
    shards = _permutation(keyed_seed(seed, epoch, "shards"), len(sizes))
    sizes, first_row = sizes[shards], first_row[shards]
    first_place = np.cumsum(sizes) - sizes
    total = int(sizes.sum())
    axis = np.arange(total) + np.repeat(first_row - first_place, sizes)
    if total <= streams * block:
        # One block over everything reads no more shards at a time, and streams of a few rows would hardly shuffle.
        streams, block = 1, streams * block

    order = np.empty(total, dtype=np.int64)
    for number, stream in enumerate(np.array_split(axis, streams)):
        key = keyed_seed(seed, epoch, f"stream-{number}")
        order[number::streams] = _shuffle_blocks(stream, key, block)
    return order


def _shuffle_blocks(rows: np.ndarray, key: int, block: int) -> np.ndarray:
    """`rows` with each run of `block` rows permuted in itself."""
    hashes = _hashes(key, len(rows))
    parts = [
        rows[start : start + block][np.argsort(hashes[start : start + block])] for start in range(0, len(rows), block)
    ]
    return np.concatenate(parts) if parts else rows


def _permutation(key: int, n: int) -> np.ndarray:
    return np.argsort(_hashes(key, n))


def _hashes(key: int, n: int) -> np.ndarray:
    """The first n outputs of SplitMix64 from state `key`, uint64 (n,).

    Written out rather than taken from np.random, whose streams may change between numpy versions. Each step is a
    bijection of 64-bit words, so the hashes are distinct and sorting them leaves no tie to the sort's mood.
    """
    word = np.uint64
    z = np.arange(1, n + 1, dtype=word) * word(0x9E3779B97F4A7C15) + word(key)
    z = (z ^ (z >> word(30))) * word(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> word(27))) * word(0x94D049BB133111EB)
    return z ^ (z >> word(31))


class RunOrder:
    """The endless sequence of a run: position → row of the dataset."""

    def __init__(self, seed: int, shard_sizes: Sequence[int]):
        self.seed = seed
        self.shard_sizes = list(shard_sizes)
        self.samples = sum(self.shard_sizes)
        self._epochs: dict[int, np.ndarray] = {}
        if self.samples == 0:
            raise DataError("the dataset holds no samples: build it again with clips that pass validation")

    def row(self, position: int) -> int:
        """The row at `position` ≥ 0, in [0, N)."""
        epoch, place = divmod(position, self.samples)
        return int(self._epoch(epoch)[place])

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            if len(self._epochs) == CACHED_EPOCHS:
                del self._epochs[min(self._epochs)]
            self._epochs[epoch] = epoch_order(self.seed, epoch, self.shard_sizes)
        return self._epochs[epoch]


def micro_batch_positions(
    batch_start: int, accumulation_step: int, rank: int, world_size: int, micro_batch_size: int
) -> range:
    """The positions one rank takes in one accumulation step of the global batch that starts at `batch_start`."""
    start = batch_start + (accumulation_step * world_size + rank) * micro_batch_size
    return range(start, start + micro_batch_size)


class RunSampler:
    """One rank's positions, micro-batch by micro-batch: the `batch_sampler` of a torch DataLoader.

    Starts at `consumed_samples` at no cost. Endless, or up to the last global batch that fits below `end`: batches
    are never short, on any rank.
    """

    def __init__(
        self,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        consumed_samples: int = 0,
        end: int | None = None,
    ):
        if min(global_batch_size, micro_batch_size, world_size) < 1 or not 0 <= rank < world_size:
            raise DataError(
                f"batch sizes must be at least 1 and the rank below the world size, not global batch "
                f"{global_batch_size}, micro-batch {micro_batch_size}, rank {rank} of {world_size}"
            )
        if global_batch_size % (world_size * micro_batch_size):
            raise DataError(
                f"global batch size {global_batch_size} is not a multiple of {world_size} ranks × micro-batch "
                f"{micro_batch_size} = {world_size * micro_batch_size}: change one of the three"
            )
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self.rank = rank
        self.world_size = world_size
        self.consumed_samples = consumed_samples
        self.end = end

    def __iter__(self) -> Iterator[list[int]]:
        accumulation_steps = self.global_batch_size // (self.world_size * self.micro_batch_size)
        start = self.consumed_samples
        while self.end is None or start + self.global_batch_size <= self.end:
            for step in range(accumulation_steps):
                yield list(micro_batch_positions(start, step, self.rank, self.world_size, self.micro_batch_size))
            start += self.global_batch_size
