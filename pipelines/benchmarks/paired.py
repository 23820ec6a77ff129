"""Two pieces of work against each other on a machine that others use too: in turns, medians of ratios."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median


def cpu_seconds(work: Callable[[], object]) -> Callable[[], float]:
    """The CPU seconds of a piece of work, all threads of the process included."""

    return partial(timed, work, time.process_time)


def wall_seconds(work: Callable[[], object]) -> Callable[[], float]:
    """The seconds on the wall of a piece of work, for one whose processes are its own."""
    return partial(timed, work, time.perf_counter)


def timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    work()
    return clock() - started


def ratio(over: Callable[[], float], under: Callable[[], float], repeats: int) -> float:
    """Median of ``over() / under()``; they take turns in going first."""
    ratios = []
    for turn in range(repeats):
        pair = (over, under) if turn % 2 else (under, over)
        taken = {side: side() for side in pair}
        ratios.append(taken[over] / taken[under])
    return median(ratios)
