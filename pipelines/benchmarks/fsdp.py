"""A step of two ranks under our ZeRO-3 against the same step under torch's own FSDP2 (``fully_shard``).

Both train the framework's own code in fp32 on the same batches with the same AdamW and clipping. FSDP2 shards as its
users do: each block is a unit, the autoencoder is one, and the rest is the root, which stays whole from forward to
backward.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipelines.benchmarks.forked import environment_of_rank
from pipelines.benchmarks.models import Size, random_batch, random_framework
from pipelines.benchmarks.processes import together
from pipelines.benchmarks.scaling import NARROW, ZERO3
from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.ports import free_port
from pipelines.engine.setup import blocks_of, build_engine, deepspeed_config, parameter_groups
from pipelines.metering.meter import Meter
from pipelines.metering.meter import together as all_phases
from vtok.framework import VTokFramework
from vtok.rows.batch import Batch

RANKS = 2
WAYS = ("zero3", "fsdp2")
# Of the arguments of a gather or a scatter, the one that holds the whole.
WHOLE = {"_allgather_base_": 0, "allgather_": 0, "_reduce_scatter_base_": 1, "reduce_scatter_": 1}
REPEATS = 5  # of a step's collectives, when they are timed alone


class Cost(NamedTuple):
    """Of one step on the slower rank.

    Attributes:
        seconds: By the clock.
        cpu: CPU seconds.
        received: Bytes of parameters and gradients that collectives bring to it.
        collectives: Their number.
        alone: Seconds that these collectives take one after the other, without the step.
        peak: The most bytes of tensors that the step makes, beside what the rank holds between steps.
        held: Those: weights, masters, moments, gradients.
        loss: Of the last step.
    """

    seconds: float
    cpu: float
    received: float
    collectives: float
    alone: float
    peak: float
    held: float
    loss: float


def compared(folder: Path, size: Size = NARROW, clips: int = 4, steps: int = 4) -> dict[str, Cost]:
    """The costs of both ways, which start from the same weights.

    Args:
        folder: For models and results.
        size: Of the language model.
        clips: Samples of a rank in a step.
        steps: Steps that are timed.
    """
    random_framework(folder / "models", size)
    for way in WAYS:
        port = free_port()
        together(run_rank, [(folder, way, rank, port, size, clips, steps) for rank in range(RANKS)], "spawn")
    return {way: slowest([folder / f"{way}-{rank}.json" for rank in range(RANKS)]) for way in WAYS}


def slowest(files: list[Path]) -> Cost:
    """The largest figure of the ranks; the loss, which differs by their samples, as their mean."""
    costs = [Cost(*json.loads(file.read_text())) for file in files]
    return Cost(*map(max, zip(*costs)))._replace(loss=sum(cost.loss for cost in costs) / len(costs))


def run_rank(folder: Path, way: str, rank: int, port: int, size: Size, clips: int, steps: int) -> None:
    """One rank's steps on samples of its own; writes its costs into ``folder``."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    # Before the ranks know each other: transformers' save_pretrained writes on the first of them only.
    framework = random_framework(folder / f"models-{way}-{rank}", size)
    os.environ.update(environment_of_rank(rank, RANKS, port))
    distributed.connect()
    train = TrainConfig(max_steps=1, global_batch_size=clips * RANKS, micro_batch_size=clips, precision="fp32")
    batch = own_samples(random_batch(framework, clips * RANKS), rank, clips)
    step, tensors = STARTS[way](framework, train)
    step(batch)
    for _ in range(2):  # ZeRO-3 gathers in advance only from the third on
        step(batch)
    seconds, cpu = [], []
    for _ in range(steps):
        started = time.perf_counter(), time.process_time()
        step(batch)
        seconds.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    with Traffic() as traffic:
        step(batch)
    with Meter(device="cpu") as meter:
        loss = step(batch)
    cost = Cost(
        median(seconds), median(cpu), traffic.received, len(traffic.calls), traffic.alone(),
        all_phases(meter.usage.values()).peak, bytes_of(tensors()), loss,
    )  # fmt: skip
    (folder / f"{way}-{rank}.json").write_text(json.dumps(cost))
    dist.barrier()
    dist.destroy_process_group()


def own_samples(batch: Batch, rank: int, clips: int) -> Batch:
    """A rank's clips of a batch."""
    own = slice(rank * clips, (rank + 1) * clips)
    return Batch(**{name: value[own] if value is not None else None for name, value in batch._asdict().items()})


# ---------------------------------------------------------------- the two ways

Started = tuple[Callable[[Batch], float], Callable[[], list[Tensor]]]


def start_zero3(framework: VTokFramework, train: TrainConfig) -> Started:
    """Our engine: a step on a batch, and all tensors that it holds."""
    config = deepspeed_config(ZERO3, train, plan_batch(train.global_batch_size, train.micro_batch_size, RANKS))
    # The JSON's bucket of 500 million gradients, 2 GB, is for large models.
    config["zero_optimization"]["reduce_bucket_size"] = sum(
        p.numel() for p in framework.parameters() if p.requires_grad
    )
    engine = build_engine(framework, config, train)
    optimiser = engine.optimizer

    def step(batch: Batch) -> float:
        loss = engine(batch)["loss"]
        engine.backward(loss)
        engine.step()
        return loss.item()

    def tensors() -> list[Tensor]:
        parameters = list(engine.module.parameters())
        states = [value for state in optimiser.optimizer.state.values() for value in state.values()]
        flat = [*optimiser.fp32_partitioned_groups_flat, optimiser.grad_partitions_flat_buffer]
        bucket = [own.buffer for own in optimiser.ipg_buckets.values() if own.buffer is not None]
        return [*(p.ds_tensor for p in parameters), *(p.data for p in parameters), *states, *flat, *bucket]

    return step, tensors


def start_fsdp2(framework: VTokFramework, train: TrainConfig) -> Started:
    """torch's: a step on a batch, and all tensors that it holds."""
    decoder = framework.decoder
    for block in blocks_of(framework):
        fully_shard(block)
    fully_shard(decoder.vae)
    register_fsdp_forward_method(decoder.vae, "encode")
    fully_shard(framework)
    groups = parameter_groups(framework, train)
    optimiser = torch.optim.AdamW(groups, lr=train.lr, betas=train.betas, eps=train.eps, fused=True)

    def step(batch: Batch) -> float:
        loss = framework(batch)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(framework.parameters(), train.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad()
        return loss.item()

    def tensors() -> list[Tensor]:
        states = [value for state in optimiser.state.values() for value in state.values()]
        return [local(x) for x in (*framework.parameters(), *states)]

    return step, tensors


STARTS = {"zero3": start_zero3, "fsdp2": start_fsdp2}


def local(x: Tensor) -> Tensor:
    """A rank's own part of a DTensor."""
    part: Tensor = x._local_tensor if hasattr(x, "_local_tensor") else x.data
    return part


def bytes_of(tensors: list[Tensor]) -> int:
    """Bytes of the storages behind tensors, each once."""
    return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}.values())


class Traffic(TorchDispatchMode):
    """Records the collectives of a step.

    Attributes:
        calls: Name and bytes of each; the bytes are those of the whole that is gathered, scattered or reduced.
    """

    def __init__(self):
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__ if func.namespace == "c10d" else ""
        if name in WHOLE or name in ("allreduce_", "broadcast_"):
            tensors = tree_leaves(args[WHOLE.get(name, 0)])
            self.calls.append((name, sum(x.nbytes for x in tensors if isinstance(x, Tensor))))
        return func(*args, **(kwargs or {}))

    @property
    def received(self) -> float:
        """Bytes that they bring to this rank: of gathers and scatters all but its own part."""
        return sum(size * ((RANKS - 1) / RANKS if name in WHOLE else 1) for name, size in self.calls)

    def alone(self) -> float:
        """Repeats the calls with empty tensors and returns the seconds of all, the median of ``REPEATS`` times."""
        seconds = []
        for _ in range(REPEATS):
            dist.barrier()
            started = time.perf_counter()
            for name, size in self.calls:
                whole = torch.zeros(max(1, size // 4 // RANKS) * RANKS)
                repeat(name, whole, whole.chunk(RANKS)[dist.get_rank()].clone())
            seconds.append(time.perf_counter() - started)
        return median(seconds)


def repeat(name: str, whole: Tensor, part: Tensor) -> None:
    """Runs a collective of a kind that :class:`Traffic` recorded, on tensors of the same size."""
    if name == "broadcast_":
        dist.broadcast(whole, src=0)
    elif name == "allreduce_":
        dist.all_reduce(whole)
    elif "gather" in name:
        dist.all_gather_into_tensor(whole, part)
    else:
        dist.reduce_scatter_tensor(part, whole)
