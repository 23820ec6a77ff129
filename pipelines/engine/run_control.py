"""How a run is stopped before its end, and that none of its processes outlives it.

    signal, or the launcher is gone --listener--> Stopper.wanted --all-reduced each step--> all ranks save, exit 75

A thread listens, since Python runs signal handlers between bytecodes only and the main thread may wait for its peers
for hours. Nothing but the steps has anything to save: at any other time a request ends the process at once.
"""

import multiprocessing
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import torch
import torch.distributed as dist

from data_tools.processes.child import end_with_parent
from pipelines.engine import distributed
from pipelines.engine.workers import silence_children

STOPPED = 75  # EX_TEMPFAIL: saved, not finished; to be started again with --resume auto
INTERRUPTED = 128 + signal.SIGINT
LOST_PEER = 1
STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
TICK = 0.5  # seconds between looks at the launcher


class Stopper:
    """Whether this run is to stop early.

    Made once, by the main thread. From then on SIGUSR1, SIGTERM, SIGINT and the launcher's end are requests to stop;
    a second SIGINT ends the process at once.
    """

    def __init__(self):
        self.wanted: str | None = None  # why, as soon as anybody has asked
        self._deferred = False
        self._launcher_is_gone = launcher_watch()
        self._signals, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._theirs = theirs  # kept open for the interpreter, which writes the numbers of signals into it
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)  # a handler has to be there for the listener to be told
        threading.Thread(target=self._listen, name="stop requests", daemon=True).start()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a request waits until the run asks for it (:meth:`requested`)."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def requested(self) -> bool:
        """Whether any rank was asked to stop; the answer is the same on all, which ask at the same step."""
        wanted = torch.tensor(float(self.wanted is not None), device=distributed.device())
        if distributed.world_size() > 1:
            dist.all_reduce(wanted, dist.ReduceOp.MAX)
        return bool(wanted.item())

    def lost_peer(self, error: RuntimeError) -> NoReturn:
        """End this process, since another rank has died or hangs; where it was asked to stop, as one that did."""
        if self.wanted is not None:
            leave(STOPPED)
        reason = " ".join(str(error).split("] ", 1)[-1].splitlines()[0].split())
        print(
            f"\nvtok-train: error: rank {distributed.rank()} lost another rank, which died, left or hangs ({reason}); "
            f"its own output tells why; --resume auto goes on from the last checkpoint",
            file=sys.stderr,
        )
        leave(LOST_PEER)

    def _listen(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._signals, selectors.EVENT_READ)
        interrupted = False
        while True:
            numbers = self._signals.recv(64) if selector.select(TICK) else b""
            for number in (n for n in numbers if n in STOP_SIGNALS):
                if number == signal.SIGINT:
                    if interrupted:
                        leave(INTERRUPTED)
                    interrupted = True
                self._stop(signal.Signals(number).name)
            if self._launcher_is_gone():
                self._stop("the launcher is gone")

    def _stop(self, reason: str) -> None:
        if not self._deferred:
            leave(STOPPED)
        if self.wanted is None:
            self.wanted = reason
            say(f"{reason}: this step is the last")


def launcher_watch() -> Callable[[], bool]:
    """A function that tells whether what launched this rank is gone.

    The ``deepspeed`` command starts a launcher that starts the ranks; TERM ends the command and leaves the launcher.
    """
    if "LOCAL_RANK" not in os.environ:
        return lambda: False
    parent, deepspeed = os.getppid(), os.environ.get("CROSS_SIZE")  # which only its launcher sets
    command = parent_of(parent) if deepspeed else None
    if deepspeed == "1" and not (session(parent) == session(command) == os.getsid(0)):
        return lambda: True  # it ended before we looked, and what we see has adopted us
    return lambda: os.getppid() != parent or (command is not None and parent_of(parent) != command)


def parent_of(pid: int) -> int | None:
    """The parent of a process; None where that cannot be known."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None


def session(pid: int | None) -> int | None:
    """The session of a process; None for one that is gone."""
    try:
        return None if pid is None else os.getsid(pid)
    except OSError:
        return None


def ignore_signals(worker: int = 0) -> None:
    """For a loader process: what reaches the whole job is for its rank to decide, and it ends when its rank does."""
    signal.set_wakeup_fd(-1)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def end_children() -> None:
    """The run is over: end the loader processes, which do not listen to SIGTERM, whatever they are doing."""
    silence_children()
    for process in multiprocessing.active_children():
        process.kill()


def leave(code: int) -> NoReturn:
    """End this process now; its children end with it. Destructors of a broken process group might wait or abort."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def say(text: str) -> None:
    """A line on stderr, from rank 0, if anybody still listens."""
    if distributed.rank() == 0:
        with suppress(OSError):
            print(f"\nvtok-train: {text}", file=sys.stderr, flush=True)
