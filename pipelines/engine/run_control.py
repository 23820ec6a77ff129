"""How a run is stopped before its end, and that none of its processes outlives it.

    signal, or the launcher is gone --listener--> Stopper.wanted --all-reduced each step--> all ranks save, exit 75

A thread listens, since Python runs signal handlers between bytecodes only and the main thread may wait for its peers
for hours. Before the first step there is nothing to save: a request ends the process at once, USR1 with 75 as well,
since only who wants the run to be started again sends it, others as the signal itself would. (srun tells the highest
exit code of its tasks, and ends them all with TERM when one has failed: a 75 then would hide the failure.)
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import torch
import torch.distributed as dist

from pipelines.engine import distributed
from pipelines.engine.loading.workers import STOP_SIGNALS, silence_children

STOPPED = 75  # EX_TEMPFAIL: saved, not finished; to be started again with --resume auto
LOST_PEER = 1
GRACE = 3.0  # seconds in which a launcher that has seen a rank fail ends the others
LAST_STEP = 1800.0  # seconds for a step and its save, after which a rank that was asked to stop takes itself for stuck
TICK = 0.5  # seconds between looks at the launcher


class Stopper:
    """Whether this run is to stop early.

    Made once, by the main thread of a ``program``, whose name begins what it says. From then on SIGUSR1, SIGTERM,
    SIGINT and the launcher's end are requests to stop; a second SIGINT ends the process at once. Once ``closed``, as
    the run ends for another reason, nothing else does.
    """

    def __init__(self, program: str):
        self.program = program
        self.wanted: str | None = None  # why, as soon as anybody has asked
        self.closed = False
        self._deferred = False
        self._latest_end = math.inf
        self._launcher_is_gone = launcher_watch()
        self._signals, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._theirs = theirs  # kept open for the interpreter, which writes the numbers of signals into it
        self._wakeup_fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        # A handler has to be there for the listener to be told.
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in STOP_SIGNALS}
        self._listener = threading.Thread(target=self._listen, name="stop requests", daemon=True)
        self._listener.start()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a request waits until the run asks for it (:meth:`requested`)."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = self.wanted is not None

    def requested(self) -> bool:
        """Whether any rank was asked to stop; the answer is the same on all, which ask at the same step."""
        wanted = torch.tensor(float(self.wanted is not None), device=distributed.device())
        return bool(distributed.reduce_over_ranks(wanted, dist.ReduceOp.MAX).item())

    def end_without_peer(self, error: RuntimeError) -> NoReturn:
        """One line and exit code 1, unless the launcher ends this rank first for what another has told and died of."""
        self.closed = True
        signal.signal(signal.SIGTERM, lambda *_: leave(LOST_PEER))
        time.sleep(GRACE)
        reason = str(error).split("] ", 1)[-1].splitlines()[0].split(". ")[0]  # without the line of the C++ source
        self._say(
            f"error: rank {distributed.rank()} lost another rank, which died, left or hangs ({reason}); its own output "
            "tells why; --resume auto goes on from the last checkpoint"
        )
        leave(LOST_PEER)

    def dismiss(self) -> None:
        """Give the signals back to those who handled them before; nobody listens any more."""
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
        """A line on stderr, below the progress bar, if anybody still listens."""
        with suppress(OSError):
            print(f"\n{self.program}: {text}", file=sys.stderr, flush=True)


def launcher_watch() -> Callable[[], bool]:
    """A function that tells whether what launched this rank is gone.

    The ``deepspeed`` command starts a launcher that starts the ranks; TERM ends the command and leaves the launcher.
    """
    if "LOCAL_RANK" not in os.environ:
        return lambda: False
    parent, deepspeed = os.getppid(), os.environ.get("CROSS_SIZE")  # which only its launcher sets
    if not deepspeed or sys.platform != "linux":
        return lambda: os.getppid() != parent
    command = parent_of(parent)
    if deepspeed == "1" and not (session(parent) == session(command) == os.getsid(0)):
        return lambda: True  # it ended before we looked, and what we see has adopted us
    return lambda: os.getppid() != parent or parent_of(parent) != command


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


def end_children() -> None:
    """The run is over: end the loader processes, which do not listen to SIGTERM, whatever they are doing."""
    silence_children()
    for process in multiprocessing.active_children():
        process.kill()


def leave(code: int) -> NoReturn:
    """End this process now; its children end with it.

    Not by way of Python's own end, where handlers of signals are gone and destructors of process groups may abort.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
