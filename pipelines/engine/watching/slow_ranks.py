"""Tells which rank makes the others wait."""

from statistics import median

PATIENCE = 20  # steps in a row after which a rank counts as slow
TOO_LONG = 0.2  # share of the step by which its own seconds exceed the others'


def columns(seconds: list[float]) -> dict[str, float | list[float]]:
    """Returns the columns of ``log.jsonl`` for the own seconds of each rank in a step; none for one rank."""
    if len(seconds) == 1:
        return {}
    slowest = max(range(len(seconds)), key=seconds.__getitem__)
    return {
        "rank_s": [round(value, 4) for value in seconds],
        "slowest_rank": slowest,
        "slowest_rank_s": seconds[slowest],
        "median_rank_s": median(seconds),
    }


class SlowRanks:
    """Watches the own seconds of the ranks in each step.

    Args:
        hosts: Name of each rank's machine.
    """

    def __init__(self, hosts: list[str]):
        self.hosts = hosts
        self.suspect, self.steps = -1, 0
        self.told = False

    def check(self, seconds: list[float], whole: float) -> str | None:
        """Counts a step.

        Args:
            seconds: The ranks' own seconds in it.
            whole: Seconds of the whole step.

        Returns:
            A line if a rank has been slow in many steps in a row, or is slow no longer; else ``None``.
        """
        if len(seconds) < 2:
            return None
        slowest = max(range(len(seconds)), key=seconds.__getitem__)
        others = median(value for rank, value in enumerate(seconds) if rank != slowest)
        slow = seconds[slowest] - others > TOO_LONG * whole
        if slow and slowest == self.suspect:
            self.steps += 1
        else:
            was, self.suspect, self.steps = self.suspect, slowest if slow else -1, int(slow)
            if self.told:
                self.told = False
                return f"rank {was} on {self.hosts[was]} is no longer slow"
        if self.steps < PATIENCE or self.told:
            return None
        self.told = True
        return (
            f"warning: rank {slowest} on {self.hosts[slowest]} is slow: in {self.steps} steps in a row the others wait "
            f"for it; in this one {seconds[slowest]:.2f} s are its own, {others:.2f} s another rank's (median)"
        )
