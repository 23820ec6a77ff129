"""Several datasets as one, with weights.

The dataset of a position, and the number of earlier positions of that dataset, are arithmetic. So each dataset has
its own endless sequence with its own epochs, and the only state is the position. Over any interval of the run a
dataset's number of samples differs from its share by at most one or two.
"""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np

from data_tools.draws import keyed_seed
from data_tools.errors import DataError
from data_tools.order import Order, RunOrder
from data_tools.shards import ROW, RawSample, ShardReader

ONE = 2**32  # 1 in fixed point; integer arithmetic is the same on every machine


class MixedOrder:
    """The endless sequence in which dataset d has the share weights[d] / sum(weights).

    Rows are numbered across datasets: those of dataset d follow those of the datasets before it.

    Args:
        seed: the run's seed.
        orders: the datasets' own sequences.
        sizes: the datasets' numbers of samples.
        weights: the datasets' weights.
    """

    def __init__(self, seed: int, orders: Sequence[Order], sizes: Sequence[int], weights: Sequence[float]):
        self.orders = list(orders)
        self._first_row = [sum(sizes[:dataset]) for dataset in range(len(sizes))]
        # Share of dataset d in the positions that the datasets before it leave.
        self._shares = [round(ONE * weight / sum(weights[d:])) for d, weight in enumerate(weights)]
        self._phases = [keyed_seed(seed, d, "phase") % ONE for d in range(len(weights))]

    def locate(self, position: int) -> tuple[int, int]:
        """(dataset, position in that dataset's own sequence) of a position in the mixture."""
        last = len(self.orders) - 1
        for dataset in range(last):
            share, phase = self._shares[dataset], self._phases[dataset]
            before = (position * share + phase) // ONE
            if ((position + 1) * share + phase) // ONE > before:
                return dataset, before
            position -= before
        return last, position

    def row(self, position: int) -> int:
        """The row, numbered across datasets, at `position` ≥ 0."""
        dataset, own = self.locate(position)
        return self._first_row[dataset] + self.orders[dataset].row(own)

    def starts_epoch(self, position: int) -> bool:
        """Whether an epoch of the position's dataset begins at `position`."""
        dataset, own = self.locate(position)
        return self.orders[dataset].starts_epoch(own)


class Mixture:
    """Several datasets with the interface of one `ShardReader`.

    A key is prefixed with the number of its dataset, because datasets may use the same keys.

    Args:
        readers: the datasets.
        weights: the datasets' weights, in any unit; by default their numbers of samples.

    Raises:
        DataError: a dataset holds no samples.
    """

    def __init__(self, readers: Sequence[ShardReader], weights: Sequence[float] | None = None):
        self.readers = list(readers)
        self.sizes = [len(reader) for reader in readers]
        self.weights = list(weights or self.sizes)
        self.manifest_hash = self._hash(len(readers))
        self.most_media = max(reader.most_media for reader in self.readers)
        if empty := [str(reader.folder) for reader in readers if not len(reader)]:
            raise DataError(f"{empty[0]} holds no samples: leave it out of the mixture")

    def __len__(self) -> int:
        """The number of samples of all datasets."""
        return sum(self.sizes)

    def _hash(self, datasets: int) -> str:
        """The manifest hash of a mixture of the first `datasets` of these."""
        parts = zip(self.readers[:datasets], self.weights)
        return sha256("\n".join(f"{reader.manifest_hash} {weight!r}" for reader, weight in parts).encode()).hexdigest()

    def earlier_hashes(self) -> set[str]:
        """The manifest hashes of the data before the last datasets were added, for any number of them."""
        first = self.readers[0]
        return {first.manifest_hash, *first.earlier_hashes(), *map(self._hash, range(1, len(self.readers)))}

    def order(self, seed: int) -> MixedOrder:
        """The run's sequence. The first dataset keeps the order that it has without a mixture."""
        seeds = [seed, *(keyed_seed(seed, dataset, "dataset") for dataset in range(1, len(self.readers)))]
        orders = [RunOrder(own, reader.shard_sizes) for own, reader in zip(seeds, self.readers)]
        return MixedOrder(seed, orders, self.sizes, self.weights)

    def read(self, row: int) -> RawSample:
        """The sample at `row`, as `ShardReader.read`."""
        dataset, own = self._find(row)
        sample = self.readers[dataset].read(own)
        return replace(sample, key=f"{dataset}/{sample.key}")

    def key(self, row: int) -> str:
        """The key of the sample at `row`; available even if the sample cannot be read."""
        dataset, own = self._find(row)
        return f"{dataset}/{self.readers[dataset].key(own)}"

    def source(self, row: int) -> int:
        """The number of the dataset that `row` is from."""
        return self._find(row)[0]

    def facts(self, rows: np.ndarray) -> np.ndarray:
        """The manifest's entries, `shards.ROW` (n,), for `rows` (n,)."""
        datasets = np.searchsorted(np.cumsum(self.sizes), rows, side="right")
        first_rows = np.cumsum(self.sizes) - self.sizes
        found = np.empty(len(rows), dtype=ROW)
        for dataset in np.unique(datasets):
            mine = datasets == dataset
            found[mine] = self.readers[dataset].facts(rows[mine] - first_rows[dataset])
        return found

    def _find(self, row: int) -> tuple[int, int]:
        """(dataset, row in that dataset)."""
        for dataset, size in enumerate(self.sizes):
            if row < size:
                return dataset, row
            row -= size
        raise IndexError(f"row {row} past the end of the mixture")
