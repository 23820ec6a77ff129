"""DeepSpeed's operators for the host, which it compiles at their first use: one for collectives, one for AdamW."""

import os
import shutil
import sys
import time
from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root

from pipelines.engine.internals import is_installed
from vtok.config import ConfigError

COLLECTIVES = "deepspeed_shm_comm"
ADAM = "cpu_adam"

# What each is needed for.
NEEDED = {COLLECTIVES: "on a CPU", ADAM: "for offload_optimizer"}

# Bytes in /dev/shm through which the collectives of one rank go.
BUFFER = 66 << 20

# Seconds after which a build has been killed: it takes one minute, three on a busy machine.
LONGEST_BUILD = 600


def prepare(operator: str) -> None:
    """Make sure that DeepSpeed can compile an operator, if it was not compiled when DeepSpeed was installed.

    Raises:
        ConfigError: there is no C++ compiler.
    """
    if is_installed(operator):
        return
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None and shutil.which("g++") is None:
        raise ConfigError(
            f"no C++ compiler ({compiler}): DeepSpeed needs one {NEEDED[operator]}; try 'apt-get install g++'"
        )
    forget_killed_builds(operator)
    if not list(build_root().glob(f"**/{operator}/{operator}.so")) and int(os.environ.get("LOCAL_RANK", "0")) == 0:
        print(f"compiling DeepSpeed's {operator} for this machine: once, about a minute", file=sys.stderr, flush=True)


def build_root() -> Path:
    """Where torch puts what it compiles."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())


def forget_killed_builds(operator: str) -> None:
    """Remove the lock that a killed build has left, for which torch would wait for ever; tell of a younger one."""
    for lock in build_root().glob(f"**/{operator}/lock"):
        try:
            age = time.time() - lock.stat().st_mtime
        except FileNotFoundError:  # its build has just ended
            continue
        if age > LONGEST_BUILD:
            lock.unlink(missing_ok=True)
        elif not (lock.parent / f"{operator}.so").exists():  # else it is only loaded, which takes a moment
            print(f"waiting for another process that compiles DeepSpeed's {operator}: if there is none, rm {lock}",
                  file=sys.stderr)  # fmt: skip


def unname_shared_buffers(rank: int) -> None:
    """Take the name off the buffer through which this rank's collectives go, when all ranks have mapped it.

    DeepSpeed leaves 66 MiB of it in ``/dev/shm`` for each rank of each run. Without a name it goes with the last of
    them, however they end.
    """
    own = f"deepspeed_allreduce_buffer_*_{os.environ['MASTER_ADDR']}_{os.environ['MASTER_PORT']}_{rank}"
    for path in Path("/dev/shm").glob(own):
        path.unlink(missing_ok=True)
