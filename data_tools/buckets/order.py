"""The order of a run with buckets: chunks of one bucket each, and batches of chunks of similar cost.

The order stays a pure function, by windows as in `streaming.grouping`. Within a window, samples of one bucket form
chunks of `unit` samples. The chunks are sorted by predicted cost and cut into global batches, and the batches are
shuffled. So the micro-batches of one micro-step have similar costs, whatever the number of ranks: over all micro-steps
of a window, the sum of the largest costs exceeds the sum of the means by less than one chunk's cost, the largest.
"""

import numpy as np

from data_tools.buckets.nearest import Bucketing
from data_tools.draws import keyed_seed
from data_tools.order import Order
from data_tools.recent import Recent
from data_tools.streaming.grouping import KEPT_WINDOWS, group, pieces_of


class BucketedOrder:
    """An order in chunks of one bucket each, with chunks of similar cost in a global batch.

    Args:
        order: the order to arrange.
        bucketing: the buckets.
        window: number of samples that are arranged together, a multiple of `batch`.
        batch: size of the global batch, a multiple of `unit`.
        unit: samples of a chunk. A micro-batch is a chunk, or an equal part of one.
        seed: the run's seed.
    """

    def __init__(self, order: Order, bucketing: Bucketing, window: int, batch: int, unit: int, seed: int):
        self.order = order
        self.bucketing = bucketing
        self.window = window
        self.batch = batch
        self.unit = unit
        self.seed = seed
        self._windows: Recent[tuple[np.ndarray, np.ndarray]] = Recent(KEPT_WINDOWS)

    def row(self, position: int) -> int:
        """The row at `position` ≥ 0."""
        rows, _ = self._at(position)
        return int(rows[position % self.window])

    def bucket(self, position: int) -> int:
        """The number of the bucket of the chunk at `position`; B for samples without a video."""
        _, buckets = self._at(position)
        return int(buckets[position % self.window // self.unit])

    def costs(self, positions: range) -> np.ndarray:
        """Predicted costs of the samples at some positions, float64 (n,)."""
        rows = np.array([self.row(position) for position in positions])
        buckets = [self.bucket(position) for position in positions]
        return self.bucketing.costs[buckets] + self.bucketing.text_costs(rows)

    def starts_epoch(self, position: int) -> bool:
        """Whether an epoch begins at `position`."""
        return self.order.starts_epoch(position)

    def _at(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        number = position // self.window
        return self._windows.get(number, lambda: self._arranged(number))

    def _arranged(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of window `number`, int64 (window,), and the buckets of its chunks, int64 (window / unit,)."""
        positions = range(number * self.window, (number + 1) * self.window)
        rows = np.array([self.order.row(position) for position in positions])
        far, texts = self.bucketing.distances(rows), self.bucketing.text_costs(rows)
        key = keyed_seed(self.seed, number, "buckets")
        places = np.concatenate(
            [
                start + self._piece(far[start:end], texts[start:end], start, key)
                for start, end in pieces_of(self.order, positions)
            ]
        )
        return rows[places], self._bucket_of(far[places].reshape(-1, self.unit, far.shape[1]))

    def _bucket_of(self, far: np.ndarray) -> np.ndarray:
        """The nearest bucket of all samples of a chunk together, int64 (chunks,), from distances (chunks, unit, B)."""
        return far.sum(axis=1).argmin(axis=1)

    def _piece(self, far: np.ndarray, texts: np.ndarray, start: int, key: int) -> np.ndarray:
        """Arranges the samples of a window that lie in one epoch.

        Chunks at either end that reach into another epoch, and those of what is left over, may mix buckets.

        Args:
            far: distances of the samples to the buckets, (n, B + 1).
            texts: costs of their texts, (n,).
            start: place of the first sample in the window.
            key: draws which batch gets which chunks.

        Returns:
            Indices (n,) of the samples in their new order.
        """
        unit, costs = self.unit, self.bucketing.costs
        samples, end = _in_chunks(far.argmin(axis=1), texts, unit), start + len(far)
        first, last = -(-start // unit) * unit, end // unit * unit
        if first >= last:
            return samples
        chunks, edges = samples[: last - first].reshape(-1, unit), samples[last - first :]
        predicted = unit * costs[self._bucket_of(far[chunks])] + texts[chunks].sum(axis=1)
        batches = range(first // self.batch * self.batch + self.batch, last, self.batch)
        sizes = np.diff([first, *batches, last]) // unit
        arranged = chunks[group(predicted, sizes, key)].ravel()
        return np.concatenate([edges[: first - start], arranged, edges[first - start :]])


def _in_chunks(buckets: np.ndarray, costs: np.ndarray, unit: int) -> np.ndarray:
    """Sorts samples by bucket and cost, and puts those behind the others that do not fill a chunk of their bucket.

    Args:
        buckets: number of each sample's bucket, int64 (n,).
        costs: (n,).
        unit: samples of a chunk.

    Returns:
        Indices (n,).
    """
    samples = np.lexsort((costs, buckets))
    sizes = np.bincount(buckets)
    within = np.arange(len(samples)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    whole = within < (sizes // unit * unit)[buckets[samples]]
    return np.concatenate([samples[whole], samples[~whole]])
