"""Locks between the processes of one machine. The kernel releases a lock when its holder dies."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

# Errors of a file system that has no locks.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path`.

    Args:
        path: created if missing, in a folder that exists.
        wait: wait until the lock is free.

    Yields:
        True if the lock is held; False if `wait` is false and another process holds it.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
