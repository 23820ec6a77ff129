"""Pieces of work at the same time, each in a process of its own."""

from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait


def together(work: Callable[..., object], calls: Sequence[tuple], start_method: str = "fork") -> None:
    """Call ``work`` with each of the arguments at once; returns when all have ended.

    Raises:
        RuntimeError: one of them failed; its traceback is on stderr.
    """
    processes = [get_context(start_method).Process(target=work, args=arguments) for arguments in calls]
    for process in processes:
        process.start()
    try:
        running = {process.sentinel: process for process in processes}
        while running:
            for sentinel in wait(list(running)):
                process = running.pop(sentinel)
                process.join()
                if process.exitcode:
                    raise RuntimeError(f"{work.__name__} ended with exit code {process.exitcode}")
    finally:
        for process in processes:  # those that would wait for one that failed
            process.kill()
            process.join()
