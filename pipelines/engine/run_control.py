"""Stops a run before its end, and ends all its processes.

    signal, or the launcher is gone --listener--> Stopper.wanted --all-reduced each step--> all ranks save, exit 75

A thread listens for signals. Python runs signal handlers between bytecodes only, and the main thread may wait for other
ranks for hours.

Before the first step there is nothing to save, and a request exits at once: USR1 with 75, others with 128 + signal.
USR1 gets 75 because schedulers send it to start the run again. TERM must not get 75: if a task fails, srun sends TERM
to the others and reports the highest exit code of all, so a 75 would hide the failure.
"""

import math
import multiprocessing
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from typing import NoReturn

import torch
import torch.distributed as dist

from pipelines.engine import distributed, roll_call
from pipelines.engine.loading.workers import STOP_SIGNALS

STOPPED = 75  # EX_TEMPFAIL: saved, not finished; start again with --resume auto
UNSAVED = 74  # EX_IOERR: a disk failed after the first step; another start may succeed
LOST_PEER = 1
LAST_STEP = 1800.0  # seconds for the last step and its save; after them a rank exits as stuck
TICK = 0.5  # seconds between two checks of the launcher


class Stopper:
    """Receives requests to stop this run early: SIGUSR1, SIGTERM, SIGINT, SIGHUP, and the end of the launcher.

    The main thread makes one Stopper per run. A second SIGINT ends the process at once. A SIGHUP that was ignored
    before stays ignored, as nohup means it. After ``closed`` is set, all other requests are ignored, since the run ends
    already.

    Args:
        program: Name of the program. Messages begin with it.

    Attributes:
        wanted: Reason of the first request, or None.
        closed: Whether the run ends for another reason.
        begun: Whether the run has taken a step.
    """

    def __init__(self, program: str):
        self.program = program
        self.wanted: str | None = None  # reason of the first request
        self.closed = self.begun = False
        self._deferred = False
        self._latest_end = math.inf
        self._launcher_is_gone = launcher_watch()
        self._signals, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._theirs = theirs  # keeps it open: the interpreter writes signal numbers into it
        self._wakeup_fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        # Python writes a signal's number to the wakeup fd only if the signal has a handler.
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in heeded()}
        self._listener = threading.Thread(target=self._listen, name="stop requests", daemon=True)
        self._listener.start()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defers requests within the context: they wait until the run calls :meth:`requested`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = self.wanted is not None

    def requested(self) -> bool:
        """Whether any rank was asked to stop. All ranks call this after each step and get the same answer."""
        self.begun = True
        wanted = torch.tensor(float(self.wanted is not None), device=distributed.device())
        stops = bool(distributed.reduce_over_ranks(wanted, dist.ReduceOp.MAX).item())
        if stops and self.wanted is None and distributed.rank() == 0:
            self._say("another rank was asked to stop: this step is the last")
        return stops

    def end_without_peer(self, error: RuntimeError) -> NoReturn:
        """Reports a lost rank in one line, unless that rank has reported its own error, and exits with code 1.

        One of the ranks that are left reports. Meanwhile it ignores the launcher, which ends all when one is gone.

        Args:
            error: Error of the collective that failed.
        """
        self.closed = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if lost := roll_call.missing():
            reason = str(error).split("] ", 1)[-1].splitlines()[0].split(". ")[0]  # without the C++ file and line
            self._say(
                f"error: rank {distributed.rank()} on {socket.gethostname()}, {roll_call.now()}, lost another rank, "
                f"which died, left or hangs ({reason}): {lost}; --resume auto goes on from the last checkpoint"
            )
        roll_call.linger()
        leave(LOST_PEER)

    def dismiss(self) -> None:
        """Restores the previous signal handlers and ends the listener."""
        signal.set_wakeup_fd(self._wakeup_fd)
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._theirs.close()
        self._listener.join(timeout=10 * TICK)

    def _listen(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._signals, selectors.EVENT_READ)
        interrupted = False
        while True:
            told = selector.select(TICK)
            numbers = self._signals.recv(64) if told else b""
            if told and not numbers:  # dismissed
                return
            for number in (signal.Signals(n) for n in numbers if n in STOP_SIGNALS):
                if interrupted and number == signal.SIGINT:
                    leave(128 + number)
                interrupted |= number == signal.SIGINT
                self._stop(number.name, STOPPED if number == signal.SIGUSR1 else 128 + number)
            if self._launcher_is_gone():
                self._stop("the launcher is gone", 128 + signal.SIGTERM)
            if time.monotonic() > self._latest_end:
                leave(LOST_PEER)

    def _stop(self, reason: str, code: int) -> None:
        if self.closed:
            return
        if not self._deferred:
            leave(code)
        if self.wanted is None:
            self.wanted, self._latest_end = reason, time.monotonic() + LAST_STEP
            if distributed.rank() == 0:
                self._say(f"{reason}: this step is the last")

    def _say(self, text: str) -> None:
        """Prints a line on stderr, below the progress bar, unless stderr is closed."""
        with suppress(OSError):
            print(f"\n{self.program}: {text}", file=sys.stderr, flush=True)


def heeded() -> list[signal.Signals]:
    """Returns the signals that stop a run: all, but a SIGHUP that this process ignores, as it does under nohup."""
    under_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in STOP_SIGNALS if not (under_nohup and number == signal.SIGHUP)]


def launcher_watch() -> Callable[[], bool]:
    """Returns a function that tells whether the launcher of this rank has ended.

    The ``deepspeed`` command starts a launcher process, which starts the ranks. TERM ends the command but not the
    launcher, so the function watches both.
    """
    if not distributed.is_launched(os.environ):
        return lambda: False
    parent, deepspeed = os.getppid(), os.environ.get("CROSS_SIZE")  # only DeepSpeed's launcher sets it
    if not deepspeed or sys.platform != "linux":
        return lambda: os.getppid() != parent
    command = parent_of(parent)
    if deepspeed == "1" and not (session(parent) == session(command) == os.getsid(0)):
        return lambda: True  # it has ended already, and another process has adopted this one
    return lambda: os.getppid() != parent or parent_of(parent) != command


def parent_of(pid: int) -> int | None:
    """Returns the parent of a process, or None if that is unknown."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None


def session(pid: int | None) -> int | None:
    """Returns the session of a process, or None if the process has ended."""
    try:
        return None if pid is None else os.getsid(pid)
    except OSError:
        return None


def end_children(keep: Collection[BaseProcess] = ()) -> None:
    """Kills the loader processes at the end of the run, since they ignore SIGTERM.

    Args:
        keep: Other children of this process, which the calling program began before the run.
    """
    for process in multiprocessing.active_children():
        if process not in keep:
            process.kill()


def leave(code: int) -> NoReturn:
    """Ends this process at once; its children end with it.

    It skips Python's finalisation, in which signal handlers are gone and destructors of process groups may abort.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
