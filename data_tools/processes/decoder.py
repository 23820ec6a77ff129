"""Decoding in a child process: a crash or hang costs one clip, not the run."""

from collections.abc import Callable
from typing import Generic, TypeVar

from data_tools.errors import BadVideo, DataError
from data_tools.processes.child import Child, ChildDied, ChildTimedOut

CLIP_TIMEOUT = 60.0  # seconds

T = TypeVar("T", contravariant=True)
R = TypeVar("R", covariant=True)


class Decoder(Generic[T, R]):
    """Calls `function` in a child process, which is started on the first call and reused until `close`.

    A child that dies or hangs is replaced on the next call.

    Args:
        function: decodes one clip.
        timeout: limit for one call, seconds.
    """

    def __init__(self, function: Callable[[T], R], timeout: float = CLIP_TIMEOUT):
        self._function = function
        self._timeout = timeout
        self._child: Child | None = None

    def __call__(self, request: T) -> R:
        """`function(request)`, from the child.

        Raises:
            BadVideo: `function` raised it; or "timeout"; or "decoder_crash" if the child died or `function` raised
                another error.
        """
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
        """End the child."""
        if self._child:
            self._child.close()
            self._child = None


def check_timeout(seconds: float) -> None:
    """Raise DataError unless the time limit is positive."""
    if not seconds > 0:
        raise DataError(f"the time limit of a clip must be above 0 seconds, not {seconds:g}")
