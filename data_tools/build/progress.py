"""How far a build is: counters that its workers share, and the bar that shows their sums."""

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from data_tools.processes.child import FORK

FIELDS = ("clips", "rejected", "bytes")


class Tally:
    """Counts of one shard in memory that processes share. Only the process that packs the shard adds to it."""

    def __init__(self):
        self.counts = FORK.RawArray("q", len(FIELDS))

    def add(self, **counts: int) -> None:
        for field, count in counts.items():
            self.counts[FIELDS.index(field)] += count


class Progress:
    """A bar with clips/s and the time left, MB/s and the rejects so far.

    done, rejected: clips of earlier attempts.
    """

    def __init__(self, total: int, done: int, rejected: int, tallies: Sequence[Tally], show: bool):
        self._tallies, self._done, self._rejected = tallies, done, rejected
        self._start = time.monotonic()
        patience = 0.1 if sys.stderr.isatty() else 10.0  # a log need not hear of every clip
        self._bar = tqdm(total=total, initial=done, unit="clip", disable=not show, mininterval=patience)

    def update(self) -> None:
        clips, rejected, size = (sum(tally.counts[n] for tally in self._tallies) for n in range(len(FIELDS)))
        speed = size / 1e6 / max(time.monotonic() - self._start, 1e-3)
        self._bar.set_postfix_str(f"{speed:.1f} MB/s, {self._rejected + rejected} rejected", refresh=False)
        self._bar.update(self._done + clips - self._bar.n)

    def close(self) -> None:
        self._bar.close()
