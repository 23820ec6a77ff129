"""Ranks: who am I, meet the others, let rank 0 go first."""

import io
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import TypeVar

import deepspeed
import torch
import torch.distributed as dist

from data_tools.errors import DataError
from pipelines.engine import allocator, cpu_op, shared_memory
from vtok.config import ConfigError

T = TypeVar("T")

# Long enough for what rank 0 does alone before the first step and after the last, while the others wait.
ALONE_TIMEOUT = timedelta(hours=2)


def rank() -> int:
    """This process's rank, also before the rendezvous."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """The GPU of this rank, or the CPU."""
    if torch.cuda.is_available():
        # Slurm may show a task only its own GPU, whatever its local rank.
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


def connect() -> None:
    """Join the other ranks: NCCL on GPUs, gloo on CPUs. Without a launcher there is one rank.

    Raises:
        ConfigError: the C++ compiler or the shared memory is missing that DeepSpeed needs on a CPU.
    """
    if not torch.cuda.is_available():
        cpu_op.prepare(cpu_op.COLLECTIVES)
        shared_memory.require_room(cpu_op.BUFFER, ranks_here(), "DeepSpeed's collectives")
    if not is_launched(os.environ):
        os.environ.update(
            RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()),
            LOCAL_SIZE="1",  # without it DeepSpeed starts numactl at every backward on a CPU
        )  # fmt: skip
    if torch.cuda.is_available():
        allocator.let_segments_grow()
        torch.cuda.set_device(device())
        agree_on_device(device())
    elif "OMP_NUM_THREADS" not in os.environ:
        # Ranks of one machine share its cores; torch would give all of them to each.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks_here()))
    # DeepSpeed calls collectives by names that torch 2.13 renames.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    with redirect_stdout(io.StringIO()):  # each rank would print that an operator is built
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, timeout=ALONE_TIMEOUT)
    barrier()
    cpu_op.unname_shared_buffers(rank())


@contextmanager
def connected() -> Iterator[None]:
    """Within, this process has joined the other ranks.

    What a launcher started stays joined to its end. A process without a launcher may go on with something else: its
    group of one is dissolved, and its environment is as before.
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
    """Whether a launcher (deepspeed, torchrun, slurm/train.sh) started the process that has this environment."""
    return "RANK" in environment


def agree_on_device(chosen: torch.device) -> None:
    """Let DeepSpeed use this GPU: it takes ``LOCAL_RANK`` for the number of one.

    Where a task sees only its own GPU (Slurm's ``--gpus-per-task 1``), there is no GPU of its local rank's number.
    """
    for name in {"LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"} & os.environ.keys():  # DeepSpeed wants the two to be equal
        os.environ[name] = str(chosen.index)


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether another rank has died, left, or did not answer in time; NCCL may end the process before it raises."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def ranks_here() -> int:
    """Ranks on this machine, as the launcher (deepspeed, torchrun, Slurm) tells."""
    names = ("LOCAL_SIZE", "LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE")
    return next((int(os.environ[name]) for name in names if name in os.environ), 1)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def rank_zero_first(work: Callable[[], T]) -> T:
    """Run ``work`` on rank 0 only and give its result to all; its user errors are raised on every rank."""
    outcome: list = [None, None]
    if rank() == 0:
        try:
            outcome[0] = work()
        except (ConfigError, DataError) as error:
            outcome[1] = error
    if world_size() > 1:
        dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def every_rank(work: Callable[[], T]) -> T:
    """Run ``work`` on every rank and give each its own result; one rank's user error is raised on all of them."""
    outcome, problem = None, None
    try:
        outcome = work()
    except (ConfigError, DataError) as error:
        problem = error
    for (found,) in gather_lists([problem]):
        if found is not None:
            raise found
    return outcome


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


def reduce_over_ranks(values: torch.Tensor, operation: dist.ReduceOp = dist.ReduceOp.SUM) -> torch.Tensor:
    """The tensor itself, with every rank's values in it."""
    if world_size() > 1:
        dist.all_reduce(values, operation)
    return values


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Average of a tensor over the ranks."""
    return reduce_over_ranks(values) / world_size()


def gather_lists(items: list) -> list[list]:
    """Every rank's list, by rank."""
    gathered: list = [items]
    if world_size() > 1:
        gathered = [None] * world_size()
        dist.all_gather_object(gathered, items)
    return gathered
