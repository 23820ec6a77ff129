"""Pieces of work at the same time, each in a process of its own."""

from collections.abc import Callable, Sequence
from multiprocessing import get_context


def together(work: Callable[..., object], calls: Sequence[tuple], start_method: str = "fork") -> None:
    """Call ``work`` with each of the arguments at once; returns when all have ended.

    Raises:
        RuntimeError: one of them failed; its traceback is on stderr.
    """
    processes = [get_context(start_method).Process(target=work, args=arguments) for arguments in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{work.__name__} ended with exit code {process.exitcode}")
