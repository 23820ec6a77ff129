"""Ranks: this process's rank and device, the process group, and collectives of Python objects and tensors."""

import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import TypeVar

import deepspeed
import torch
import torch.distributed as dist

from data_tools.errors import DataError
from pipelines.cli.launcher import launch_of, local_rank, rank_and_ranks, ranks_of_machine, rendezvous
from pipelines.engine import allocator, cpu_op, shared_memory
from pipelines.engine.meeting import meet
from pipelines.engine.ports import free_port
from vtok.config import ConfigError
from vtok.sequence import SequenceGroup

T = TypeVar("T")

# How long the other ranks wait for work that only rank 0 does, before the first step and after the last.
ALONE_TIMEOUT = timedelta(hours=2)

# Errors of one rank that the others are told of: the user's, and those of a disk.
TOLD = (ConfigError, DataError, OSError)

# Collectives of which torch keeps a record, for the message about a lost rank.
RECORDED = "2000"


def rank() -> int:
    """Returns this process's rank. The process group need not exist yet."""
    return rank_and_ranks()[0]


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """Returns the GPU of this rank, or the CPU."""
    if torch.cuda.is_available():
        # Slurm may show a task only its own GPU, whatever its local rank.
        return torch.device("cuda", local_rank() % torch.cuda.device_count())
    return torch.device("cpu")


def connect() -> None:
    """Joins the process group: NCCL on GPUs, gloo on CPUs. Without a launcher there is one rank.

    Raises:
        ConfigError: The launcher's variables do not tell how the ranks meet; or DeepSpeed's operator for CPUs cannot
            be compiled or has too little shared memory; or the port at which the ranks meet is in use; or ranks are
            missing.
    """
    if meets_nobody(os.environ):  # another run may use the launcher's default port
        os.environ.update(
            RANK="0", WORLD_SIZE="1", LOCAL_RANK=str(local_rank()), MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(free_port()),
            LOCAL_SIZE="1",  # without it DeepSpeed starts numactl at every backward on a CPU
        )  # fmt: skip
    else:
        os.environ.update(rendezvous(os.environ))
    if not torch.cuda.is_available():
        cpu_op.prepare(cpu_op.COLLECTIVES)
        shared_memory.require_room(cpu_op.BUFFER, ranks_here(), "DeepSpeed's collectives")
        cpu_op.build_collectives()
    if torch.cuda.is_available():
        allocator.let_segments_grow()
        torch.cuda.set_device(device())
        agree_on_device(device())
    elif "OMP_NUM_THREADS" not in os.environ:
        # Ranks of one machine share its cores. By default torch uses all cores in each rank.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks_here()))
    # DeepSpeed calls collectives by names that torch 2.13 renames.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", RECORDED)
    with redirect_stdout(io.StringIO()), port_in_use_told():  # each rank would print that it builds an operator
        _store = meet()  # rank 0 then has the process group use the same one
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, timeout=ALONE_TIMEOUT)
    barrier()
    cpu_op.unname_shared_buffers(rank())


@contextmanager
def port_in_use_told() -> Iterator[None]:
    """Turns torch's error about a port in use into one line.

    Raises:
        ConfigError: The port is in use.
    """
    try:
        yield
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise ConfigError(
            f"port {os.environ.get('MASTER_PORT')} of this machine is in use, perhaps by another run: give the "
            "launcher another one (--master_port)"
        ) from error


@contextmanager
def connected() -> Iterator[None]:
    """Joins the process group for the duration of the context.

    A process that a launcher started stays in the group until it ends. A process without a launcher may go on with
    other work afterwards. So the context destroys its group of one rank and restores its environment.
    """
    found = dict(os.environ)
    try:
        connect()
        yield
    finally:
        if not is_launched(found):
            if dist.is_initialized():
                deepspeed.comm.destroy_process_group()
            os.environ.clear()
            os.environ.update(found)


def is_launched(environment: Mapping[str, str]) -> bool:
    """Whether a launcher started the process with this environment. srun's or mpirun's only task counts as alone."""
    return launch_of(environment).names is not None


def meets_nobody(environment: Mapping[str, str]) -> bool:
    """Whether a rank is alone, so that it may choose its port. torchrun itself listens at its own, for one rank too."""
    launch = launch_of(environment)
    agent = launch.names is not None and environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return launch.ranks == 1 and not agent


def agree_on_device(chosen: torch.device) -> None:
    """Sets ``LOCAL_RANK`` to the index of this rank's GPU, since DeepSpeed uses it as that index.

    With Slurm's ``--gpus-per-task 1`` a task sees only its own GPU, so its local rank may not be the index of a GPU.
    """
    for name in {"LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"} & os.environ.keys():  # DeepSpeed requires both to be equal
        os.environ[name] = str(chosen.index)


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether an error means that another rank died, left or timed out. NCCL may end the process before it raises."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def ranks_here() -> int:
    """Returns the number of ranks on this machine, from the launcher's environment."""
    return ranks_of_machine(os.environ)


def sequence_group(size: int) -> SequenceGroup:
    """Makes the groups of ``size`` consecutive ranks that share their samples, and returns this rank's. All call it."""
    own, _ = dist.new_subgroups(size, timeout=ALONE_TIMEOUT)
    return SequenceGroup(size, rank() % size, own)


def rank_zero_first(work: Callable[[], T]) -> T:
    """Runs ``work`` on rank 0 only and returns its result on every rank. Its ``TOLD`` are raised on every rank."""
    outcome: list = [None, None]
    if rank() == 0:
        try:
            outcome[0] = work()
        except TOLD as error:
            outcome[1] = error
    if world_size() > 1:
        dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def every_rank(work: Callable[[], T]) -> T:
    """Runs ``work`` on every rank and returns each rank's own result. One rank's ``TOLD`` is raised on all ranks."""
    outcome, problem = None, None
    try:
        outcome = work()
    except TOLD as error:
        problem = error
    for (found,) in gather_lists([problem]):
        if found is not None:
            raise found
    return outcome


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


def reduce_over_ranks(values: torch.Tensor, operation: dist.ReduceOp = dist.ReduceOp.SUM) -> torch.Tensor:
    """Reduces a tensor over the ranks in place, and returns it."""
    if world_size() > 1:
        dist.all_reduce(values, operation)
    return values


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Returns the mean of a tensor over the ranks. The tensor itself may become their sum."""
    return reduce_over_ranks(values) / world_size()


def gather_lists(items: list) -> list[list]:
    """Returns the lists of all ranks, in the order of ranks."""
    gathered: list = [items]
    if world_size() > 1:
        gathered = [None] * world_size()
        dist.all_gather_object(gathered, items)
    return gathered
