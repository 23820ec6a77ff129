"""TensorBoard's file of events, written in the order of the calls and patient with a full disk.

torch's ``SummaryWriter`` writes in a thread, which a full disk ends for good.
"""

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from pipelines.engine.logs import PatientFile

VERSION = "brain.Event:2"


class Events:
    """Writes a new file of events.

    Args:
        folder: TensorBoard's folder.
        step: First step of this run. TensorBoard hides what earlier files hold from that step on.
    """

    def __init__(self, folder: Path, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time_ns()
        name = f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{os.getpid()}.{now}"
        self._file = RecordWriter(PatientFile(folder / name))
        self._add(Event(file_version=VERSION))
        self._add(Event(file_version=VERSION, step=step))
        self._add(Event(session_log=SessionLog(status=SessionLog.START), step=step))
        self.flush()

    def add(self, summary: Summary, step: int) -> None:
        """Adds a scalar, text or image; :meth:`flush` writes it."""
        self._add(Event(summary=summary, step=step))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write(event.SerializeToString())
