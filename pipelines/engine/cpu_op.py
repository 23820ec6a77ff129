"""DeepSpeed's own operator for collectives on CPUs: compiled at its first use, and untidy."""

import os
import shutil
import sys
import time
from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root

from vtok.config import ConfigError

OPERATOR = "deepspeed_shm_comm"

# Seconds after which a build has been killed: it takes one minute, three on a busy machine.
LONGEST_BUILD = 600


def require_compiler() -> None:
    """Raise ConfigError if there is no C++ compiler."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None and shutil.which("g++") is None:
        raise ConfigError(f"no C++ compiler ({compiler}): DeepSpeed needs one on a CPU; try 'apt-get install g++'")


def forget_killed_builds() -> None:
    """Remove the lock that a killed build has left, for which torch would wait for ever; tell of a younger one."""
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in root.glob(f"**/{OPERATOR}/lock"):
        try:
            age = time.time() - lock.stat().st_mtime
        except FileNotFoundError:  # its build has just ended
            continue
        if age > LONGEST_BUILD:
            lock.unlink(missing_ok=True)
        else:
            print(f"waiting for another process that compiles DeepSpeed's operator: if there is none, rm {lock}",
                  file=sys.stderr)  # fmt: skip


def unname_shared_buffers(rank: int) -> None:
    """Take the name off the buffer through which this rank's collectives go, when all ranks have mapped it.

    DeepSpeed leaves 66 MB of it in ``/dev/shm`` for each rank of each run. Without a name it goes with the last of
    them, however they end.
    """
    own = f"deepspeed_allreduce_buffer_*_{os.environ['MASTER_ADDR']}_{os.environ['MASTER_PORT']}_{rank}"
    for path in Path("/dev/shm").glob(own):
        path.unlink(missing_ok=True)
