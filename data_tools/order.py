"""The order of samples: pure arithmetic, so that a run can stop and resume at any position.

From the dataset to one rank's micro-batch:

1. `EpochOrder`: the rows of the dataset in the order of one epoch, a function of (seed, epoch, shard sizes).
   Shards are permuted and their rows laid on one axis. The axis is cut into a few equal *canonical streams*. Each
   stream is shuffled within blocks, and the streams are interleaved. So a reader needs few shards at a time, yet
   neighbouring samples come from distant shards. Blocks are computed on demand: no process holds millions of rows.
2. `RunOrder`: the run is one endless sequence; position p is place p mod N of epoch p div N. Batches are always
   full and may span epochs.
3. `mixture.MixedOrder` and `grouping.GroupedOrder`: pure sequences made from other sequences.
4. `RunSampler`: global batch k is the positions [k·G, (k+1)·G), split over accumulation steps and ranks. The
   samples of a batch and their order do not depend on the number of ranks. So the only state of the order is the
   number of consumed samples.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from data_tools.draws import keyed_seed
from data_tools.errors import DataError
from data_tools.recent import Recent

# A reader uses one block of each stream at a time; prefetching workers also use each stream's next block.
KEPT_BLOCKS = 32
KEPT_EPOCHS = 3


class Order(Protocol):
    """An endless sequence of rows. Each epoch is a permutation of the dataset."""

    def row(self, position: int) -> int:
        """Returns the row at `position` ≥ 0."""

    def starts_epoch(self, position: int) -> bool:
        """Whether an epoch begins at `position`."""


class EpochOrder:
    """The rows of one epoch: a permutation of 0 … N−1 with N = sum(shard_sizes), in blocks computed on demand.

    Args:
        seed: The run's seed.
        epoch: Number of the epoch.
        shard_sizes: Number of samples of each shard, int64 (shards,).
        streams: Number of canonical streams.
        block: Rows per block. `streams` and `block` define the order. A dataset of at most `streams * block` rows is
            shuffled as one block.
    """

    def __init__(self, seed: int, epoch: int, shard_sizes: np.ndarray, streams: int = 8, block: int = 4096):
        self.seed, self.epoch = seed, epoch
        self.samples = int(shard_sizes.sum())
        if self.samples <= streams * block:
            # One block needs no more shards at a time than several. Streams of a few rows would hardly be shuffled.
            streams, block = 1, streams * block
        self.streams, self.block_size = streams, block
        shards = shuffled(keyed_seed(seed, epoch, "shards"), len(shard_sizes))
        self._ends = np.cumsum(shard_sizes[shards])  # where the permuted shards end on the axis
        self._shifts = (np.cumsum(shard_sizes) - shard_sizes)[shards] - (self._ends - shard_sizes[shards])

    def find(self, place: int) -> tuple[int, int, int]:
        """Returns (stream, number of the block in the stream, index in the block) of `place` in [0, N)."""
        index, stream = divmod(place, self.streams)
        return stream, *divmod(index, self.block_size)

    def block(self, stream: int, number: int) -> np.ndarray:
        """Returns the shuffled rows of a stream's block, int64; empty past the stream's end."""
        begin, end = self._stream(stream)
        start = begin + number * self.block_size
        axis = np.arange(start, min(start + self.block_size, end))
        rows = axis + self._shifts[np.searchsorted(self._ends, axis, side="right")]
        key = keyed_seed(self.seed, self.epoch, f"stream-{stream}")
        return rows[np.argsort(_hashes(key, len(rows), start - begin))]

    def blocks(self, stream: int) -> range:
        """Returns the numbers of a stream's blocks."""
        begin, end = self._stream(stream)
        return range(-(-(end - begin) // self.block_size))

    def _stream(self, stream: int) -> tuple[int, int]:
        """Returns the stream's (begin, end) on the axis. If N is not divisible, the first streams are one longer."""
        size, longer = divmod(self.samples, self.streams)
        begin = stream * size + min(stream, longer)
        return begin, begin + size + (stream < longer)


def epoch_order(seed: int, epoch: int, shard_sizes: Sequence[int], streams: int = 8, block: int = 4096) -> np.ndarray:
    """Returns all rows of an epoch, int64 (N,); arguments as in `EpochOrder`."""
    epoch_ = EpochOrder(seed, epoch, np.asarray(shard_sizes, dtype=np.int64), streams, block)
    order = np.empty(epoch_.samples, dtype=np.int64)
    for stream in range(epoch_.streams):
        blocks = [epoch_.block(stream, number) for number in epoch_.blocks(stream)]
        if blocks:
            order[stream :: epoch_.streams] = np.concatenate(blocks)
    return order


def shuffled(key: int, n: int) -> np.ndarray:
    """Returns a permutation of 0 … n−1, int64 (n,), a function of (key, n)."""
    return np.argsort(_hashes(key, n))


def _hashes(key: int, n: int, start: int = 0) -> np.ndarray:
    """Returns outputs start … start + n − 1 of SplitMix64 from state `key`, uint64 (n,).

    np.random would not do, because its streams may change between numpy versions. Each step is a bijection of 64-bit
    words. So the hashes are distinct, and sorting them meets no ties.
    """
    word = np.uint64
    z = np.arange(start + 1, start + n + 1, dtype=word) * word(0x9E3779B97F4A7C15) + word(key)
    z = (z ^ (z >> word(30))) * word(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> word(27))) * word(0x94D049BB133111EB)
    return z ^ (z >> word(31))


class RunOrder:
    """The endless sequence of one dataset.

    Args:
        seed: The run's seed.
        shard_sizes: Number of samples of each shard.

    Raises:
        DataError: The dataset holds no samples.
    """

    def __init__(self, seed: int, shard_sizes: Sequence[int]):
        self.seed = seed
        self.shard_sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.samples = int(self.shard_sizes.sum())
        self._epochs: Recent[EpochOrder] = Recent(KEPT_EPOCHS)
        self._blocks: Recent[np.ndarray] = Recent(KEPT_BLOCKS)
        if self.samples == 0:
            raise DataError("the dataset holds no samples: build it again with clips that pass validation")

    def row(self, position: int) -> int:
        """Returns the row at `position` ≥ 0, in [0, N)."""
        number, place = divmod(position, self.samples)
        epoch = self._epochs.get(number, lambda: EpochOrder(self.seed, number, self.shard_sizes))
        stream, block, index = epoch.find(place)
        return int(self._blocks.get((number, stream, block), lambda: epoch.block(stream, block))[index])

    def starts_epoch(self, position: int) -> bool:
        """Whether an epoch begins at `position`."""
        return position % self.samples == 0


def micro_batch_positions(
    batch_start: int, accumulation_step: int, rank: int, world_size: int, micro_batch_size: int
) -> range:
    """Returns one rank's positions in one accumulation step of the global batch that starts at `batch_start`."""
    start = batch_start + (accumulation_step * world_size + rank) * micro_batch_size
    return range(start, start + micro_batch_size)


class RunSampler:
    """One rank's positions, one micro-batch at a time: the `batch_sampler` of a torch DataLoader.

    Args:
        global_batch_size: Samples per optimiser step, over all ranks.
        micro_batch_size: Samples per rank and accumulation step.
        rank: This rank.
        world_size: Number of ranks.
        consumed_samples: First position. A resumed run starts here without reading earlier positions.
        end: Position below which the last full global batch ends; None for no end.

    Raises:
        DataError: The sizes are out of range or do not divide.
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
                f"batch sizes must be at least 1 and the rank below the world size: got global batch "
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
