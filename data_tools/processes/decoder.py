"""Decoding that may crash or hang: it happens in a process of its own, and what befalls that process costs one clip."""

from collections.abc import Callable
from typing import Generic, TypeVar

from data_tools.errors import BadVideo, DataError
from data_tools.processes.child import Child, ChildDied, ChildTimedOut

CLIP_TIMEOUT = 60.0  # seconds

T = TypeVar("T")
R = TypeVar("R")


class Decoder(Generic[T, R]):
    """Called, gives `function(request)` from a child process, which is there from the first call on until `close`.

    Raises BadVideo, whatever becomes of the process, and replaces it: "timeout" where there is no answer within
    `timeout` seconds, "decoder_crash" where the process dies or `function` raises anything but BadVideo.
    """

    def __init__(self, function: Callable[[T], R], timeout: float = CLIP_TIMEOUT):
        self._function = function
        self._timeout = timeout
        self._child: Child | None = None

    def __call__(self, request: T) -> R:
        if self._child is None:
            self._child = Child(self._function)
        self._child.send(request)
        try:
            return self._child.receive(self._timeout)
        except BadVideo:
            raise
        except ChildDied as death:
            self._child = None
            raise BadVideo("timeout" if isinstance(death, ChildTimedOut) else "decoder_crash", str(death)) from None
        except Exception as error:
            raise BadVideo("decoder_crash", f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        if self._child:
            self._child.close()
            self._child = None


def check_timeout(seconds: float) -> None:
    """Raises DataError for a time limit that cannot be meant."""
    if not seconds > 0:
        raise DataError(f"the time limit of a clip must be above 0 seconds, not {seconds:g}")
