"""Checks the free memory in /dev/shm, through which processes of a machine exchange tensors.

Containers often have only 64 MB of it. A process that writes to a full /dev/shm dies of a bus error, without a message.
So a run checks the free memory first.
"""

import math
import os
from pathlib import Path

from vtok.config import ConfigError

FOLDER = Path("/dev/shm")


def require_room(size: int, ranks: int, what: str, otherwise: str = "") -> None:
    """Checks that /dev/shm has room for the ranks of this machine.

    Args:
        size: Bytes that each rank needs.
        ranks: Number of ranks on this machine.
        what: What needs the bytes; for the message.
        otherwise: What else would help; for the message.

    Raises:
        ConfigError: There is not enough room.
    """
    if not FOLDER.is_dir():  # not Linux
        return
    state = os.statvfs(FOLDER)
    needed, free = size * ranks, state.f_bavail * state.f_frsize
    if needed > free:
        raise ConfigError(
            f"{FOLDER} has {free / 1e6:,.0f} MB free, but {what} of this machine's ranks ({ranks}) need "
            f"{needed / 1e6:,.0f} MB: give the container more (docker run --shm-size {math.ceil(needed / 1e9) + 1}g)"
            f"{otherwise}"
        )
