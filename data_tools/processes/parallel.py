"""Map a function over inputs in several processes."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from data_tools.errors import DataError
from data_tools.processes.child import FORK, settle_after_fork

T = TypeVar("T")
R = TypeVar("R")


def in_processes(function: Callable[[T], R], things: Iterable[T], workers: int) -> Iterator[R]:
    """Yield the results in the order of `things`. One worker means this process, without a pool.

    Raises:
        DataError: `workers` is below 1, or a worker process died.
    """
    if workers < 1:
        raise DataError(f"the number of workers must be at least 1, not {workers}")
    if workers == 1:
        yield from map(function, things)
        return
    # fork: a fresh process would spend seconds on importing torch.
    with ProcessPoolExecutor(workers, mp_context=FORK, initializer=settle_after_fork) as pool:
        try:
            yield from pool.map(function, things)
        except BrokenProcessPool:
            raise DataError("a worker process died: run with --workers 1 to see at which shard") from None
