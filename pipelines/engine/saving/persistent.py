"""Writes to a disk that may be full, or a mount that may be lost, for a moment: tries again, and says so."""

import sys
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from pipelines.engine import distributed

T = TypeVar("T")

PAUSE = 10.0  # seconds between two tries


class Unsaved(Exception):
    """The disk does not take what a run must keep. There may be nothing to mend: another start may succeed."""


def until_written(write: Callable[[], T], what: str, last_try: Event) -> T:
    """Calls ``write`` until the disk takes it. A line says that it waits, and another one that it is done.

    Args:
        write: Can be called again after an error.
        what: What it writes, for the lines.
        last_try: Once it is set, the next try is the last.

    Returns:
        The result of ``write``.

    Raises:
        OSError: The last try failed.
    """
    told, rank = "", f"rank {distributed.rank()}"
    while True:
        last = last_try.is_set()
        try:
            result = write()
        except OSError as error:
            if last:
                raise
            if told != (told := words(error)):
                say(f"warning: {rank} cannot write {what} ({told}): it tries again every {PAUSE:g} s")
        else:
            if told:
                say(f"{rank} has written {what}")
            return result
        last_try.wait(PAUSE)


def words(error: BaseException) -> str:
    """Returns the system's words for an error, or the error's own."""
    return getattr(error, "strerror", None) or str(error)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
