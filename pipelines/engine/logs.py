"""Logs with one JSON object per line, each with its ``step``, and the files that wait while the disk is full."""

import errno
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from data_tools.shards import atomic_write

# The logs of a run, in its folder.
LOGS = ("log.jsonl", "validation.jsonl", "bad_samples.jsonl")

# Errors that may pass while a run goes on.
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE}


class PatientFile:
    """A file to append to. If the disk is full, what was written waits in memory until there is room.

    One line on stderr says so, and another one that all was written. So a disk that is full or a mount that is lost for
    a moment does not end a run of weeks.

    Args:
        path: The file. It is created if it does not exist, and opened again after an error.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file: BinaryIO | None = None
        self._end: int | None = None  # of what is written; a part of a write that failed may follow
        self._waiting: list[bytes] = []
        self._told = False
        self.flush()

    def write(self, data: bytes) -> None:
        """Takes data; :meth:`flush` writes it."""
        self._waiting.append(data)

    def flush(self) -> None:
        """Writes what waits, all of it or nothing.

        Raises:
            OSError: Writing fails, and not because of a full or lost disk.
        """
        try:
            self._append(b"".join(self._waiting))
        except OSError as error:
            self._lose()
            if error.errno not in PASSING:
                raise
            self._tell(f"cannot write to {self.path} ({error.strerror}): the run goes on and what it logs waits")
            return
        self._waiting.clear()
        if self._told:
            self._told = False
            print(f"{self.path} can be written to again: nothing is lost", file=sys.stderr, flush=True)

    def close(self) -> None:
        self.flush()
        if self._waiting:
            print(f"warning: the end of {self.path} is lost: there is still no room", file=sys.stderr, flush=True)
        self._lose()

    def _append(self, data: bytes) -> None:
        self._file = self._file or self.path.open("ab", buffering=0)
        size = self._file.seek(0, os.SEEK_END)
        self._end = size if self._end is None else min(size, self._end)  # smaller if a user has removed the file
        if size > self._end:
            self._file.truncate(self._end)
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._end += len(data)

    def _lose(self) -> None:
        """Closes the file. Takes back what was written of a failed write, if the system lets it."""
        file, self._file = self._file, None
        if file and self._end is not None:
            with suppress(OSError):
                file.truncate(self._end)
        if file:
            with suppress(OSError):
                file.close()

    def _tell(self, text: str) -> None:
        if not self._told:
            self._told = True
            print(f"warning: {text}", file=sys.stderr, flush=True)


def truncate_log(path: Path, step: int) -> None:
    """Keeps the lines up to ``step``. A resumed run repeats the steps after its last checkpoint."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    with atomic_write(path) as file:
        file.writelines(line for line in lines if (found := entry(line)) and found["step"] <= step)


def entry(line: bytes) -> dict | None:
    """Returns what a line of a log says; ``None`` if a process was killed as it wrote it, or it is not ours."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) else None
