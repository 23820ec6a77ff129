"""Prepares DeepSpeed's CPU operators, which it compiles at first use: one for collectives, one for AdamW."""

import io
import os
import shutil
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

from deepspeed.comm.torch import build_shm_op
from torch.utils.cpp_extension import get_default_build_root

from pipelines.cli.launcher import local_rank
from pipelines.engine.internals import is_installed
from vtok.config import ConfigError
from vtok.weights import first_line

COLLECTIVES = "deepspeed_shm_comm"
ADAM = "cpu_adam"

# When a run needs each operator.
NEEDED = {COLLECTIVES: "on a CPU", ADAM: "for offload_optimizer"}

# Bytes in /dev/shm that the collectives of one rank use.
BUFFER = 66 << 20

# Seconds after which a build counts as killed. A build takes one minute, or three on a busy machine.
LONGEST_BUILD = 600


def prepare(operator: str) -> None:
    """Makes sure that DeepSpeed can compile an operator. An operator compiled at installation needs nothing.

    The build needs ``ninja``, which pip installs beside the interpreter. So PATH gets that folder as its last.

    Raises:
        ConfigError: There is no C++ compiler.
    """
    if is_installed(operator):
        return
    folders, own = os.environ.get("PATH", os.defpath).split(os.pathsep), os.path.dirname(sys.executable)
    os.environ["PATH"] = os.pathsep.join(folders if own in folders else [*folders, own])
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None and shutil.which("g++") is None:
        raise ConfigError(
            f"no C++ compiler ({compiler}): DeepSpeed needs one {NEEDED[operator]}; try 'apt-get install g++'"
        )
    forget_killed_builds(operator)
    if not list(build_root().glob(f"**/{operator}/{operator}.so")) and local_rank() == 0:
        print(f"compiling DeepSpeed's {operator} for this machine: once, about a minute", file=sys.stderr, flush=True)


def build_collectives() -> None:
    """Compiles the operator for collectives, or loads it. DeepSpeed then has it when it joins the ranks.

    Raises:
        ConfigError: It cannot be compiled or loaded.
    """
    try:
        with redirect_stdout(io.StringIO()):  # each rank would print that it builds an operator
            build_shm_op()
    except (RuntimeError, ImportError) as error:
        raise ConfigError(
            f"DeepSpeed cannot compile its {COLLECTIVES}, which it needs {NEEDED[COLLECTIVES]} ({reason_of(error)}): "
            "install what it lacks"
        ) from error


def reason_of(error: BaseException) -> str:
    """Returns one line that says why a build failed: the compiler's first error, if there is one."""
    found = (line.strip() for line in str(error).splitlines() if " error: " in line)
    return next(found, first_line(error.__cause__ or error))


def build_root() -> Path:
    """Returns the folder in which torch compiles extensions."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())


def forget_killed_builds(operator: str) -> None:
    """Removes the lock of a killed build, for which torch would wait for ever. Reports a younger lock on stderr."""
    for lock in build_root().glob(f"**/{operator}/lock"):
        try:
            age = time.time() - lock.stat().st_mtime
        except FileNotFoundError:  # its build has just ended
            continue
        if age > LONGEST_BUILD:
            lock.unlink(missing_ok=True)
        elif not (lock.parent / f"{operator}.so").exists():  # else a process only loads it: a moment
            print(f"waiting for another process that compiles DeepSpeed's {operator}: if there is none, rm {lock}",
                  file=sys.stderr)  # fmt: skip


def unname_shared_buffers(rank: int) -> None:
    """Unlinks the shared buffer of this rank's collectives. Call it when all ranks have mapped the buffer.

    DeepSpeed would leave these 66 MiB per rank in ``/dev/shm`` after every run. The system frees an unlinked buffer
    when the last process that maps it ends, however it ends.
    """
    own = f"deepspeed_allreduce_buffer_*_{os.environ['MASTER_ADDR']}_{os.environ['MASTER_PORT']}_{rank}"
    for path in Path("/dev/shm").glob(own):
        path.unlink(missing_ok=True)
