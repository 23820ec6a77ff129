"""One function over many things, in several processes."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from data_tools.errors import DataError

T = TypeVar("T")
R = TypeVar("R")


def in_processes(function: Callable[[T], R], things: Iterable[T], workers: int) -> Iterator[R]:
    """The results, in the order of `things`; with one worker, in this process and one at a time.

    Raises DataError where a process dies: a decoder's crash cannot be caught.
    """
    if workers < 1:
        raise DataError(f"the number of workers must be at least 1, not {workers}")
    if workers == 1:
        yield from map(function, things)
        return
    # By fork: a process that begins anew spends seconds on importing torch.
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        try:
            yield from pool.map(function, things)
        except BrokenProcessPool:
            raise DataError("a worker process died: try --workers 1 to see at which shard") from None
