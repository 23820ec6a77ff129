"""Text on stdout and stderr of a run, which may lead to a file on a full disk or to a terminal that is gone."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class Tolerant:
    """A stream that never raises an error of the system. What it cannot write waits in its buffer, or is lost.

    Args:
        stream: The stream itself.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


@contextmanager
def tolerant() -> Iterator[None]:
    """Within, printing ends no run. Also a decorator."""
    found = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(Tolerant, found)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = found
