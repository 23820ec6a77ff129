"""How a command tells its user what to mend."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from safetensors import SafetensorError

from data_tools.errors import DataError
from data_tools.printing import escape_the_unprintable
from pipelines.cli.launcher import rank_and_ranks
from vtok.config import ConfigError

# Errors that a disk, a mount or another program causes, and the user can correct.
OF_THE_MACHINE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
    errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EADDRINUSE, errno.EMFILE, errno.ENOENT,
}  # fmt: skip


def is_of_the_machine(error: BaseException) -> bool:
    """Whether a disk, a mount or another program is at fault. safetensors has an error of its own for it."""
    if isinstance(error, SafetensorError):
        return "I/O error" in str(error)
    return isinstance(error, OSError) and error.errno in OF_THE_MACHINE


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there is not enough memory, of the host or of a GPU."""
    named = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and named)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def die(program: str, error: BaseException, rank: int = 0) -> NoReturn:
    """End with exit code 2 and one line; the other ranks end silently."""
    if rank == 0:
        print(f"{program}: error: {one_line(error)}", file=sys.stderr)
    raise SystemExit(2)


@contextmanager
def told_to_the_job() -> Iterator[None]:
    """Within, an exit with code 2 leaves the file that ``VTOK_USER_ERROR`` names, if ``slurm/train.sh`` has set it.

    srun ends all tasks with the first, and its code is the highest of theirs. So the script would not learn of the 2.
    """
    try:
        yield
    except SystemExit as end:
        if end.code == 2 and (file := os.environ.get("VTOK_USER_ERROR")):
            with suppress(OSError):
                Path(file).touch()
        raise


@contextmanager
def user_errors(program: str) -> Iterator[None]:
    """Within, an error that the user can mend ends the command ``program`` (see :func:`die`).

    What the launcher tells of the rank is checked first. It may be wrong in one rank alone, so each rank says so.
    """
    escape_the_unprintable()
    try:
        rank, _ = rank_and_ranks()
    except ConfigError as error:
        die(program, error)
    try:
        yield
    except (ConfigError, DataError) as error:
        die(program, error, rank)
    except (OSError, SafetensorError, MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            error = ConfigError(f"out of memory: ask for less at once, or use a larger machine ({one_line(error)})")
        elif not is_of_the_machine(error):
            raise
        die(program, error, rank)
