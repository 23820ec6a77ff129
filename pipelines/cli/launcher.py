"""What a launcher tells a process of its rank, before any rendezvous: variables of torchrun, an MPI or Slurm.

The ``deepspeed`` command and ``slurm/train.sh`` set torchrun's. An empty variable counts as not set.
"""

import os
import re
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple

from vtok.config import ConfigError, require

START = "start it with deepspeed, torchrun or slurm/train.sh, which set it"
LARGEST_PORT = 65_535
# Seconds in which the name of rank 0's machine may appear: in a cluster of containers it can start last.
NAME_PATIENCE = 30.0


class Names(NamedTuple):
    """The variables of a launcher. Where ``sign`` is not set, it was another one."""

    launcher: str
    rank: str
    ranks: str
    local_rank: str
    sign: str


TORCHRUN = Names("the launcher", "RANK", "WORLD_SIZE", "LOCAL_RANK", "RANK")
# In this order: a task of an MPI also has the variables of the srun that started the MPI's own daemons. A task of srun
# may have ``PMI_SIZE``.
OTHERS = (
    Names(
        "mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"
    ),
    Names("mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALRANKID"),  # of MPICH and Intel MPI
    Names("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"),
)

# How many ranks a machine has, by deepspeed, torchrun, mpirun, mpiexec and sbatch.
LOCAL_SIZES = (
    "LOCAL_SIZE", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE",
)  # fmt: skip


class Launch(NamedTuple):
    """The place of a process among those that were started together.

    Attributes:
        rank: Its rank.
        ranks: How many processes there are.
        local_rank: Its rank on its machine, or None if nobody says.
        names: The variables that say so, or None if the process is alone: without a launcher, or the only task of it.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int | None = None
    names: Names | None = None


def launch_of(environment: Mapping[str, str]) -> Launch:
    """Returns the place of the process that has this environment.

    Raises:
        ConfigError: A variable is missing, or has an impossible value.
    """
    if environment.get(TORCHRUN.sign):
        return read(environment, TORCHRUN)
    for names in OTHERS:
        told = environment.get(names.sign) and environment.get(names.ranks)
        if told and number(environment, names.ranks, 1) > 1:
            require(
                bool(environment.get(names.local_rank)),
                f"{names.ranks} is {environment[names.ranks]}, but {names.local_rank} is not set: start it with "
                f"{names.launcher} itself, or unset {names.ranks}",
            )
            return read(environment, names)
    ranks = number(environment, TORCHRUN.ranks, 1) if environment.get(TORCHRUN.ranks) else 1
    require(ranks == 1, f"WORLD_SIZE is {ranks}, but RANK is not set: {START}; for one rank, unset WORLD_SIZE")
    return Launch()


def read(environment: Mapping[str, str], names: Names) -> Launch:
    """Returns what the variables of one launcher say.

    Raises:
        ConfigError: A variable is missing, or has an impossible value.
    """
    for name, other in ((names.rank, names.ranks), (names.ranks, names.rank)):
        require(
            bool(environment.get(name)),
            f"{other} is {environment.get(other)}, but {name} is not set: {START}; for one rank, unset {other}",
        )
    rank, ranks = number(environment, names.rank), number(environment, names.ranks, 1)
    require(rank < ranks, f"{names.rank} is {rank}, but {names.ranks} is {ranks}: ranks are counted from 0")
    local = number(environment, names.local_rank) if environment.get(names.local_rank) else None
    return Launch(rank, ranks, local, names)


def number(environment: Mapping[str, str], name: str, least: int = 0, most: float = float("inf")) -> int:
    """Returns a variable that must be a whole number from ``least`` to ``most``; else raises ConfigError."""
    text = environment[name].strip()
    value = int(text) if text.isascii() and text.isdigit() else -1
    limits = f"of at least {least}" if most == float("inf") else f"from {least} to {most}"
    require(least <= value <= most, f"{name} is {environment[name]!r}, but must be a whole number {limits}: {START}")
    return value


def rank_and_ranks() -> tuple[int, int]:
    """Returns this process's rank and the number of ranks; raises ConfigError as :func:`launch_of`."""
    launch = launch_of(os.environ)
    return launch.rank, launch.ranks


def local_rank() -> int:
    """Returns this process's rank on its machine, 0 if nobody says; raises ConfigError as :func:`launch_of`."""
    return launch_of(os.environ).local_rank or 0


def ranks_of_machine(environment: Mapping[str, str]) -> int:
    """Returns the number of ranks on a process's machine, 1 if nobody says; raises ConfigError if it is no number.

    Slurm lists a step's tasks by node, such as ``4(x2),3``, of which the largest number is taken.
    """
    if found := next((name for name in LOCAL_SIZES if environment.get(name)), None):
        return number(environment, found, 1)
    by_node = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    return max(map(int, re.findall(r"(?:^|,)(\d+)", by_node)), default=1)


def rendezvous(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns torchrun's variables, with which this process meets the others of its launch.

    Raises:
        ConfigError: One is missing or has an impossible value, or no machine has the name in ``MASTER_ADDR``.
    """
    launch = launch_of(environment)
    names = launch.names or TORCHRUN
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]:
        lacking = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
        if names is TORCHRUN:
            raise ConfigError(f"this is rank {launch.rank} of {launch.ranks}, but {lacking}: {START}")
        raise ConfigError(
            f"this is task {launch.rank} of {launch.ranks} of {names.launcher}, but {lacking}: use slurm/train.sh, or "
            f"export MASTER_ADDR and MASTER_PORT, where rank 0 listens; for one rank, start one task"
        )
    if launch.local_rank is None:
        raise ConfigError(f"this is rank {launch.rank} of {launch.ranks}, but {names.local_rank} is not set: {START}")
    port = number(environment, "MASTER_PORT", 1, LARGEST_PORT)
    require_known(environment["MASTER_ADDR"])
    numbers = dict(RANK=launch.rank, WORLD_SIZE=launch.ranks, LOCAL_RANK=launch.local_rank, MASTER_PORT=port)
    return {name: str(value) for name, value in numbers.items()} | {"MASTER_ADDR": environment["MASTER_ADDR"]}


def require_known(host: str) -> None:
    """Raises ConfigError if no machine has this name or address within ``NAME_PATIENCE`` seconds."""
    latest = time.monotonic() + NAME_PATIENCE
    while True:
        try:
            socket.getaddrinfo(host, None)
            return
        except (OSError, UnicodeError) as error:
            if time.monotonic() > latest:
                reason = getattr(error, "strerror", None) or "no name of a machine"
                raise ConfigError(
                    f"MASTER_ADDR is {host}, which this machine does not find ({reason}): set it to the name or "
                    "address of rank 0's machine"
                ) from error
        time.sleep(1)
