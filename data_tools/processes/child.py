"""Work in a process of its own, which may crash or hang without harm, and work in several of them at once."""

import ctypes
import os
import resource
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

# By fork, so that a replacement for a crashed process is there at once, with all that the parent has read.
FORK = get_context("fork")
PR_SET_PDEATHSIG = 1  # of Linux's prctl


class ChildDied(Exception):
    """The process ended, or was ended, before it answered."""

    def __init__(self, how: str):
        super().__init__(how)


class ChildTimedOut(ChildDied):
    """It took longer than it was given, and was killed."""


class Child:
    """A process that answers each request with `function(request)`, one at a time, until it is closed.

    It ends when its parent does, however the parent ends.
    """

    def __init__(self, function: Callable[[Any], Any]):
        self.connection, theirs = FORK.Pipe()
        self._process = FORK.Process(target=_serve, args=(function, self.connection, theirs))
        self._process.start()
        theirs.close()

    def send(self, request: Any) -> None:
        try:
            self.connection.send(request)
        except ConnectionError:
            pass  # it is dead, as `receive` will say

    def receive(self, timeout: float | None = None) -> Any:
        """The answer. Raises what `function` raised, and ChildDied; after either of the latter the child is closed."""
        try:
            if not self.connection.poll(timeout):
                self.close()
                raise ChildTimedOut(f"no end after {timeout:g} s")
            answered, answer = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            self.close()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ChildDied(f"the process ended with {how}") from None
        if answered:
            return answer
        raise answer

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def in_children(function: Callable[[Any], None], requests: Iterable, count: int, tick: float) -> Iterator[None]:
    """Run `function` on all requests in up to `count` children; yields about every `tick` seconds and at each end.

    The first error, or the death of a child, is raised here; the others are then ended.
    """
    waiting = deque(requests)
    busy: dict[Connection, Child] = {}
    try:
        for _ in range(min(count, len(waiting))):
            child = Child(function)
            child.send(waiting.popleft())
            busy[child.connection] = child
        while busy:
            for connection in wait(list(busy), tick):
                busy[connection].receive()
                if waiting:
                    busy[connection].send(waiting.popleft())
                else:
                    busy.pop(connection).close()
            yield
    finally:
        for child in busy.values():
            child.close()


def _serve(function: Callable[[Any], Any], parents: Connection, ours: Connection) -> None:
    end_with_parent()
    parents.close()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected, and no news worth a core file
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            request = ours.recv()
        except EOFError:
            return
        try:
            reply = (True, function(request))
        except Exception as error:
            reply = (False, error)
        ours.send(reply)


def end_with_parent() -> None:
    """Let this process, a child by fork, be killed when its parent ends."""
    if sys.platform == "linux":
        parent = FORK.parent_process().pid
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
