"""Locks the folder of a run, so that a second process cannot write to it."""

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_tools.locks import NO_LOCKS
from vtok.config import ConfigError

LOCK = ".lock"


class InUse(ConfigError):
    """Another process writes to the folder."""


# Descriptors of lock files. The process holds their locks until it closes them or ends.
_held: dict[Path, int] = {}


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
        while (descriptor := locked(path)) is not None and not is_at(path, descriptor):
            os.close(descriptor)  # a start that failed has just removed the file
    except OSError as error:
        raise ConfigError(f"cannot write to --output {output}: {error.strerror}") from error
    if descriptor is not None:
        _held[path] = descriptor


def locked(path: Path) -> int | None:
    """Makes a lock file, locks it and writes down who holds it.

    Returns:
        Its descriptor; ``None`` if the file system has no locks, which a line says.

    Raises:
        InUse: Another process holds the lock.
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        return descriptor
    except OSError as error:
        holder = owner(os.pread(descriptor, 1000, 0))
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise InUse(f"{path.parent} is in use by {holder}: wait for it, or choose another --output") from None
        if error.errno not in NO_LOCKS:
            raise
    print(f"warning: {path.parent} is on a file system without locks: start only one run there", file=sys.stderr)
    return None


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at the path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def owner(text: bytes) -> str:
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
        descriptor = _held.pop(output / LOCK, None)
        if descriptor is not None:
            if not (output / "config.yaml").exists():
                (output / LOCK).unlink(missing_ok=True)
                with suppress(OSError):  # the folder is not empty: the run has packed data in it
                    output.rmdir()
            os.close(descriptor)
