"""Memory in /dev/shm, through which processes of a machine hand one another tensors. Containers often have 64 MB of it.

A process that writes where none is left gets a bus error and dies without a word, so this is looked at before.
"""

import math
import os
from pathlib import Path

from vtok.config import ConfigError

FOLDER = Path("/dev/shm")


def require_room(size: int, ranks: int, what: str, otherwise: str = "") -> None:
    """Raise ConfigError if there is not room for what the ranks of this machine need.

    Args:
        size: bytes that each of them needs.
        what: needs them.
        otherwise: what helps beside more room.
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
