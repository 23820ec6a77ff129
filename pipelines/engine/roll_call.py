"""The ranks' roll call: after a lost peer it tells which ranks do not answer, and what each one did last.

Each rank writes what it does into the store of the process group, and a thread of each rank answers when the roll is
called. A rank that was killed or stopped does not answer. One that waits for data or for a disk answers that it does.

The store lies on rank 0. Without it nothing is known but that rank 0 is gone.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torch.distributed import DistError, Store

from pipelines.engine import distributed, internals

TICK = 0.5  # seconds between two looks into the store
PATIENCE = 3.0  # seconds that a rank has to answer
CALLED, LEFT = "roll is called", "a rank has reported its own error"

_step, _phase = "before the first step", ""
_call: "RollCall | None" = None


@contextmanager
def joined() -> Iterator[None]:
    """Within, this rank takes part, if there are several. All ranks enter and leave together.

    An error of this rank lets the other ranks know that it is reported here.
    """
    global _call
    doing("before the first step")
    several = distributed.world_size() > 1
    _call = RollCall(internals.own_store(), internals.own_store()) if several else None
    try:
        yield
        distributed.barrier()
    except BaseException as error:
        if _call and not (isinstance(error, RuntimeError) and distributed.is_lost_peer(error)):
            _call.leave()
        raise
    if _call:
        _call.end()
    _call = None


def linger() -> None:
    """Has rank 0 stay a moment after an error, since it keeps the store that the other ranks still ask."""
    if _call and distributed.rank() == 0:
        time.sleep(3 * TICK)


def keep_record(folder: Path) -> None:
    """Names the run's folder, into which :func:`missing` writes this rank's record of collectives."""
    if _call:
        _call.folder = folder


def doing(step: str | None = None, phase: str = "") -> None:
    """Notes what this rank does: a step, and a phase of it."""
    global _step, _phase
    _step, _phase = step or _step, phase
    if _call:
        _call.note(now())


def now() -> str:
    """Returns what this rank does, in words."""
    return f"{_step}, {_phase}" if _phase else _step


def missing() -> str | None:
    """Calls the roll. Returns what is known about the ranks that are gone; ``None`` if another rank reports it."""
    return _call.called() if _call else "there is no record of what it did"


class RollCall:
    """Answers the roll, and calls it.

    Args:
        store: The store, for this object's thread.
        notes: The same, for the thread that trains.

    Attributes:
        folder: The run's folder, once it is known.
    """

    def __init__(self, store: Store, notes: Store):
        self._store, self._notes = store, notes
        self.folder: Path | None = None
        self._rank, self._ranks = distributed.rank(), distributed.world_size()
        self._wake = threading.Event()
        self._asked = self._silent = False  # whether this rank calls the roll; whether another one reports
        self._answers: dict[int, str] | None = None
        self.note(now())
        self._thread = threading.Thread(target=self._serve, name="roll call", daemon=True)
        self._thread.start()

    def note(self, text: str) -> None:
        with suppress(DistError):
            self._notes.set(f"doing/{self._rank}", f"on {socket.gethostname()}, process {os.getpid()}, {text}")

    def leave(self) -> None:
        """Lets the other ranks know that this one reports an error."""
        with suppress(DistError):
            self._notes.set(LEFT, str(self._rank))

    def end(self) -> None:
        """Ends the thread."""
        self._silent = True
        self._wake.set()
        self._thread.join(TICK)

    def called(self) -> str | None:
        """Calls the roll (see :func:`missing`)."""
        self._asked = True
        self._wake.set()
        self._thread.join(PATIENCE + 2 * TICK)
        if self.folder:
            self._keep_record(self.folder / "flight_recorder" / f"rank_{self._rank:05d}.json")
        if self._silent:
            return None
        if self._answers is None:
            return "rank 0 does not answer"
        silent = [rank for rank in range(self._ranks) if rank not in self._answers]
        if silent:
            return "; ".join(f"rank {rank} does not answer, it was {self._last_note(rank)}" for rank in silent)
        return "all ranks answer: " + "; ".join(f"rank {rank} is {self._answers[rank]}" for rank in range(self._ranks))

    def _keep_record(self, path: Path) -> None:
        with suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            path.write_text(internals.record_of_collectives())

    def _last_note(self, rank: int) -> str:
        with suppress(DistError):
            if self._notes.check([f"doing/{rank}"]):
                return self._notes.get(f"doing/{rank}").decode()
        return "never heard of"

    def _serve(self) -> None:
        with suppress(DistError):
            answered = False
            while not self._silent:
                self._wake.wait(TICK)
                self._silent = self._silent or self._store.check([LEFT])
                if self._asked and not self._silent:
                    self._store.set(CALLED, "")
                if not answered and self._store.check([CALLED]):
                    text = f"on {socket.gethostname()}, {now()}, after {internals.last_collective()}"
                    self._store.set(f"answer/{self._rank}", text)
                    answered = True
                if self._asked:
                    self._answers = self._collect()
                    self._silent = self._silent or self._store.add("reports", 1) > 1
                    return

    def _collect(self) -> dict[int, str]:
        """Waits for the answers; returns those that came, by rank."""
        latest, found = time.monotonic() + PATIENCE, dict[int, str]()
        while len(found) < self._ranks and time.monotonic() < latest:
            for rank in set(range(self._ranks)) - set(found):
                if self._store.check([f"answer/{rank}"]):
                    found[rank] = self._store.get(f"answer/{rank}").decode()
            time.sleep(0.05)
        return found
