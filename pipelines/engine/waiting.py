"""Measures how long this rank waits in collectives: for the other ranks, or for the network.

The rest of a step is the rank's own time. A rank with more own time than the others makes them wait. On a GPU the time
is that of the streams that wait, so it is an upper bound where collectives overlap with computation.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from pipelines.engine import internals

T = TypeVar("T")

_seconds = 0.0
_events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []


@contextmanager
def measured() -> Iterator[None]:
    """Within, waits for collectives are measured."""
    take()
    with internals.waits_through(_timed):
        yield


def take() -> float:
    """Returns the seconds since the last call, when the device has done its work."""
    global _seconds
    if _events:
        torch.cuda.synchronize()
    seconds = _seconds + sum(begin.elapsed_time(end) for begin, end in _events) / 1000
    _seconds = 0.0
    _events.clear()
    return seconds


def _timed(wait: Callable[[], T]) -> T:
    global _seconds
    if torch.cuda.is_available():
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        result = wait()
        end.record()
        _events.append((begin, end))
        return result
    started = time.perf_counter()
    try:
        return wait()
    finally:
        _seconds += time.perf_counter() - started
