"""Two pieces of work against each other on a machine that others use too: CPU time, in turns, medians of ratios."""

import time
from collections.abc import Callable
from statistics import median


def cpu_seconds(work: Callable[[], object]) -> Callable[[], float]:
    """The CPU seconds of a piece of work, all threads of the process included."""

    def measure() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return measure


def ratio(over: Callable[[], float], under: Callable[[], float], repeats: int) -> float:
    """Median of ``over() / under()``; they take turns in going first."""
    ratios = []
    for turn in range(repeats):
        pair = (over, under) if turn % 2 else (under, over)
        taken = {side: side() for side in pair}
        ratios.append(taken[over] / taken[under])
    return median(ratios)
