"""Samples of like length into one batch: less padding, and ranks that finish a step together.

Still pure. The sequence is cut into windows of a fixed number of samples; inside a window the samples are sorted by
length, dealt to its batches in that order, and the batches shuffled, so that there is no curriculum from short to
long. A window never reaches over the beginning of an epoch: every sample still comes once an epoch.
"""

from collections.abc import Callable

import numpy as np

from data_tools.draws import keyed_seed
from data_tools.shards import ShardReader
from data_tools.streaming.mixture import Mixture
from data_tools.streaming.order import Order, shuffled
from data_tools.streaming.recent import Recent

KEPT_WINDOWS = 4
TOKENS_PER_WORD = 4 / 3  # of English, with the tokenizers of today's language models


def estimated_tokens(
    reader: ShardReader | Mixture, seconds: float, tokens_per_second: float, rows: np.ndarray
) -> np.ndarray:
    """How long the samples at `rows` (n,) are, in tokens, int64 (n,), from the manifest alone.

    Visual tokens of the part of the clip that a window of `seconds` sees, and the caption's.
    """
    facts = reader.facts(rows)
    seen = np.minimum(facts["duration"].astype(np.float64), seconds)
    return np.rint(seen * tokens_per_second + facts["words"] * TOKENS_PER_WORD).astype(np.int64)


class GroupedOrder:
    """`order`, grouped by length.

    lengths: rows, int64 (n,) → lengths, (n,), in any unit; a pure function.
    window: samples that are sorted together, a multiple of `batch`.
    batch: samples of a global batch.
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
        return self.order.starts_epoch(position)

    def _grouped(self, number: int) -> np.ndarray:
        positions = range(number * self.window, (number + 1) * self.window)
        rows = np.array([self.order.row(position) for position in positions])
        epochs = [place for place, position in enumerate(positions) if place and self.order.starts_epoch(position)]
        batches = range(0, self.window, self.batch)
        key = keyed_seed(self.seed, number, "group")
        pieces = []
        for start, end in zip([0, *epochs], [*epochs, self.window]):
            cuts = [start, *(place for place in batches if start < place < end), end]
            pieces.append(rows[start:end][group(self.lengths(rows[start:end]), np.diff(cuts), key)])
        return np.concatenate(pieces)


def group(lengths: np.ndarray, sizes: np.ndarray, key: int) -> np.ndarray:
    """The order, indices (n,), in which n samples fill batches of `sizes` (sum n) with neighbours in length.

    Which batch gets the short ones is drawn by `key`.
    """
    by_length = np.argsort(lengths, kind="stable")
    drawn = shuffled(key, len(sizes))
    starts = np.empty_like(sizes)
    starts[drawn] = np.cumsum(sizes[drawn]) - sizes[drawn]
    return np.concatenate([by_length[start : start + size] for start, size in zip(starts, sizes)])
