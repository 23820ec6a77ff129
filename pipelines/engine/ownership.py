"""Locks the folder of a run, so that a second process cannot write to it."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vtok.config import ConfigError

LOCK = ".lock"


class InUse(ConfigError):
    """Another process writes to the folder."""


# Open lock files. The process holds their locks until it closes them or ends.
_held: dict[Path, IO[str]] = {}


def own(output: Path) -> None:
    """Locks the run's folder for this process, until the process ends or :func:`held` releases it.

    POSIX locks also work on NFS. The system releases them when the process ends, so a crash leaves nothing to remove.

    Raises:
        InUse: Another process holds the lock.
        ConfigError: The folder cannot be written to.
    """
    path = output / LOCK
    if path in _held:
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise ConfigError(f"cannot write to --output {output}: {error.strerror}") from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise InUse(f"{output} is in use by {owner(file.read())}: wait for it, or choose another --output") from None
    except OSError:  # a file system without locks
        file.close()
        return
    file.truncate(0)
    json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
    file.flush()
    _held[path] = file


def owner(text: str) -> str:
    """Describes the owner of a lock, from the text of the lock file."""
    try:
        found = json.loads(text)
        return f"process {found['pid']} on {found['host']}"
    except (ValueError, KeyError):
        return "another process"


@contextmanager
def held(output: Path) -> Iterator[None]:
    """Releases the folder's lock at the end of the context. A run that fails before it begins leaves no folder.

    Args:
        output: The folder, which rank 0 has locked with :func:`own`.
    """
    try:
        yield
    finally:
        if file := _held.pop(output / LOCK, None):
            if not (output / "config.yaml").exists():
                (output / LOCK).unlink(missing_ok=True)
                with suppress(OSError):  # the folder is not empty: the run has packed data in it
                    output.rmdir()
            file.close()
