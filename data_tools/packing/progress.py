"""The progress of a build: counters in shared memory, and the bar that shows their sums."""

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from data_tools.processes.child import FORK

FIELDS = ("clips", "rejected", "bytes")


class Tally:
    """Counters of one shard in shared memory. Only the process that packs the shard changes them."""

    def __init__(self):
        self.counts = FORK.RawArray("q", len(FIELDS))

    def add(self, **counts: int) -> None:
        """Add to counters by name, of `FIELDS`."""
        for field, count in counts.items():
            self.counts[FIELDS.index(field)] += count


class Progress:
    """A progress bar with clips/s, the time left, MB/s and the number of rejected clips.

    Args:
        total: clips of all shards.
        done: clips of shards that were finished earlier.
        rejected: rejected clips among `done`.
        tallies: counters of the shards in progress.
        show: whether to draw the bar.
    """

    def __init__(self, total: int, done: int, rejected: int, tallies: Sequence[Tally], show: bool):
        self._tallies, self._done, self._rejected = tallies, done, rejected
        self._start = time.monotonic()
        interval = 0.1 if sys.stderr.isatty() else 10.0  # seconds; a log needs fewer lines than a terminal
        self._bar = tqdm(total=total, initial=done, unit="clip", disable=not show, mininterval=interval)

    def update(self) -> None:
        """Show the counters' current sums."""
        clips, rejected, size = (sum(tally.counts[n] for tally in self._tallies) for n in range(len(FIELDS)))
        speed = size / 1e6 / max(time.monotonic() - self._start, 1e-3)
        self._bar.set_postfix_str(f"{speed:.1f} MB/s, {self._rejected + rejected} rejected", refresh=False)
        self._bar.update(self._done + clips - self._bar.n)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()
