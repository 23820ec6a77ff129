"""Work in a child process that may crash or hang, and work in several of them at once."""

import ctypes
import gc
import os
import resource
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

# fork: a replacement for a crashed child starts at once, with everything that the parent has loaded.
FORK = get_context("fork")
PR_SET_PDEATHSIG = 1  # of Linux's prctl

# In no forked process does the garbage collector free what the parent left: a video decoder would wait for threads that
# only the parent has.
os.register_at_fork(after_in_child=gc.freeze)

# Errors of a pipe, or of receiving a tensor in shared memory, when the process at the other end has died.
LOST_CONNECTION = (EOFError, ConnectionError, FileNotFoundError)
ENDING = 5.0  # seconds until a process whose connection broke has ended


class ChildDied(Exception):
    """The child ended, or was killed, before it answered."""

    def __init__(self, how: str):
        super().__init__(how)


class ChildTimedOut(ChildDied):
    """The child exceeded its time limit and was killed."""


class Undelivered(Exception):
    """The child could not send its answer: it cannot be pickled, or a tensor in it cannot be shared."""


class Child:
    """A child process that answers requests with `function(request)`, in their order, until `close`.

    It ends when its parent ends, even if the parent is killed. `function` need not be picklable; requests and answers
    must be.

    Args:
        function: Answers a request.
        prepare: Called first in the child, after its signal handlers are set.
    """

    def __init__(self, function: Callable[[Any], Any], prepare: Callable[[], None] = lambda: None):
        self.connection, theirs = FORK.Pipe()
        self._process = FORK.Process(target=_serve, args=(function, prepare, self.connection, theirs))
        self._process.start()
        theirs.close()

    def send(self, request: Any) -> None:
        """Send a request. A dead child is reported by `receive`."""
        try:
            self.connection.send(request)
        except ConnectionError:
            pass

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for the answer to the earliest request without one, at most `timeout` seconds.

        Raises:
            ChildTimedOut: there is no answer in time; the child is closed.
            ChildDied: the child has died; it is closed.
            Undelivered: the child could not send the answer; it goes on.
            Exception: whatever `function` raised; the child goes on.
        """
        try:
            if not self.connection.poll(timeout):
                self.close()
                raise ChildTimedOut(f"no end after {timeout:g} s")
            answered, answer = self.connection.recv()
        except LOST_CONNECTION:
            self._process.join(ENDING)
            code = self._process.exitcode or 0
            self.close()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ChildDied(f"the process ended with {how}") from None
        if answered:
            return answer
        raise answer

    def has_answer(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; whether `receive` has something to return or raise."""
        return self.connection.poll(timeout)

    def close(self) -> None:
        """Kill the child. One that waits for a lost mount cannot be killed; it is left behind."""
        self._process.kill()
        self._process.join(ENDING)
        self.connection.close()


def in_children(function: Callable[[Any], None], requests: Iterable, count: int, tick: float) -> Iterator[None]:
    """Run `function` on all requests in up to `count` children.

    Yields:
        None, at least every `tick` seconds and whenever requests are done.

    Raises:
        ChildDied: a child has died; all are killed.
        Exception: the first error of `function`; all children are killed.
    """
    waiting = deque(requests)
    busy: dict[Connection, Child] = {}
    try:
        for _ in range(min(count, len(waiting))):
            child = Child(function)
            child.send(waiting.popleft())
            busy[child.connection] = child
        while busy:
            ready = wait(list(busy), tick)
            for connection in [connection for connection in busy if connection in ready]:
                busy[connection].receive()
                if waiting:
                    busy[connection].send(waiting.popleft())
                else:
                    busy.pop(connection).close()
            yield
    finally:
        for child in busy.values():
            child.close()


def _serve(function: Callable[[Any], Any], prepare: Callable[[], None], parents: Connection, ours: Connection) -> None:
    """Answer requests until the parent closes the connection, or ends: killed, it resets the connection."""
    settle_after_fork()
    end_with_parent()
    parents.close()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # crashes are expected: no core files
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    prepare()
    with suppress(*LOST_CONNECTION):
        while True:
            request = ours.recv()
            try:
                reply = (True, function(request))
            except Exception as error:
                reply = (False, error)
            ours.send_bytes(_packed(*reply))


def _packed(answered: bool, answer: Any) -> memoryview:
    """A reply as bytes for the parent's `recv`. If it cannot be packed, they are those of the reason."""
    try:
        return ForkingPickler.dumps((answered, answer))
    except Exception as error:
        reason = error if answered else answer
        return ForkingPickler.dumps((False, Undelivered(f"{type(reason).__name__}: {reason}")))


def settle_after_fork() -> None:
    """Let torch use one thread, since its pool of threads is the parent's."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def end_with_parent() -> None:
    """Have Linux kill this child process when its parent ends."""
    parent = FORK.parent_process()
    if sys.platform == "linux" and parent is not None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent.pid:  # the parent ended before the call
            os._exit(1)
