"""A run owns its folder: a second process that would write there is refused."""

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


# Open files, whose locks the process holds until it ends.
_held: dict[Path, IO[str]] = {}


def own(output: Path) -> None:
    """Take the run's folder for this process, until it ends, however it ends.

    POSIX locks work on NFS, too, and go with the process that holds them: nothing has to be removed after a crash.

    Raises:
        InUse: another process has it.
        ConfigError: the folder cannot be written to.
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
    """What the lock file says of its owner."""
    try:
        found = json.loads(text)
        return f"process {found['pid']} on {found['host']}"
    except (ValueError, KeyError):
        return "another process"


@contextmanager
def held(output: Path) -> Iterator[None]:
    """Within, the folder is this process's; then it is given back. A run that fails before it begins leaves nothing.

    Args:
        output: The folder, which rank 0 has taken by :func:`own`.
    """
    try:
        yield
    finally:
        if file := _held.pop(output / LOCK, None):
            if not (output / "config.yaml").exists():
                (output / LOCK).unlink(missing_ok=True)
                with suppress(OSError):  # something is in it: the data that the run has made for itself
                    output.rmdir()
            file.close()
