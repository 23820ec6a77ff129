"""Batches of samples of similar length: less padding, and ranks finish a step at about the same time.

The order stays a pure function. The sequence is cut into windows of a fixed number of samples. Within a window the
samples are sorted by length and cut into batches, and the batches are shuffled, so that lengths do not grow over the
run. A window is split where an epoch begins, so every sample still comes once per epoch.
"""

from collections.abc import Callable

import numpy as np

from data_tools.draws import keyed_seed
from data_tools.order import Order, shuffled
from data_tools.recent import Recent
from data_tools.shards import ShardReader
from data_tools.streaming.mixture import Mixture

KEPT_WINDOWS = 4
TOKENS_PER_WORD = 4 / 3  # typical for English and current language models


def estimated_tokens(
    reader: ShardReader | Mixture, seconds: float, tokens_per_second: float, rows: np.ndarray
) -> np.ndarray:
    """Estimated length of samples in tokens, from the manifest alone.

    Args:
        reader: the shards.
        seconds: length of the window; visual tokens are counted for at most this part of a clip.
        tokens_per_second: visual tokens per second.
        rows: int64 (n,).

    Returns:
        Visual plus caption tokens, int64 (n,).
    """
    facts = reader.facts(rows)
    seen = np.minimum(facts["duration"].astype(np.float64), seconds)
    return np.rint(seen * tokens_per_second + facts["words"] * TOKENS_PER_WORD).astype(np.int64)


class GroupedOrder:
    """An order grouped by length.

    Args:
        order: the order to group.
        lengths: pure function from rows, int64 (n,), to lengths (n,) in any unit.
        window: number of samples sorted together, a multiple of `batch`.
        batch: size of the global batch.
        seed: the run's seed.
    """

    def __init__(self, order: Order, lengths: Callable[[np.ndarray], np.ndarray], window: int, batch: int, seed: int):
        self.order = order
        self.lengths = lengths
        self.window = window
        self.batch = batch
        self.seed = seed
        self._windows: Recent[np.ndarray] = Recent(KEPT_WINDOWS)

    def row(self, position: int) -> int:
        """The row at `position` ≥ 0."""
        number, place = divmod(position, self.window)
        return int(self._windows.get(number, lambda: self._grouped(number))[place])

    def starts_epoch(self, position: int) -> bool:
        """Whether an epoch begins at `position`."""
        return self.order.starts_epoch(position)

    def _grouped(self, number: int) -> np.ndarray:
        """The rows of window `number`, int64 (window,)."""
        positions = range(number * self.window, (number + 1) * self.window)
        rows = np.array([self.order.row(position) for position in positions])
        batches = range(0, self.window, self.batch)
        key = keyed_seed(self.seed, number, "group")
        pieces = []
        for start, end in pieces_of(self.order, positions):
            cuts = [start, *(place for place in batches if start < place < end), end]
            pieces.append(rows[start:end][group(self.lengths(rows[start:end]), np.diff(cuts), key)])
        return np.concatenate(pieces)


def pieces_of(order: Order, positions: range) -> list[tuple[int, int]]:
    """The (start, end) in a window of each piece of it that lies in one epoch."""
    epochs = [place for place, position in enumerate(positions) if place and order.starts_epoch(position)]
    return list(zip([0, *epochs], [*epochs, len(positions)]))


def group(lengths: np.ndarray, sizes: np.ndarray, key: int) -> np.ndarray:
    """Fill batches with samples of neighbouring length.

    Args:
        lengths: (n,).
        sizes: size of each batch, (batches,), with sum n.
        key: draws which batch gets which lengths.

    Returns:
        Indices (n,) of the samples in their new order.
    """
    by_length = np.argsort(lengths, kind="stable")
    drawn = shuffled(key, len(sizes))
    starts = np.empty_like(sizes)
    starts[drawn] = np.cumsum(sizes[drawn]) - sizes[drawn]
    return np.concatenate([by_length[start : start + size] for start, size in zip(starts, sizes)])
