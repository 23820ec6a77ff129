"""Takes one optimiser step: forward and backward of all micro-batches, then the update."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipelines.engine import distributed, memory, roll_call, waiting
from pipelines.engine.batch_plan import BatchPlan, batch_digest, in_global_order
from pipelines.engine.finite import finite_on_all_ranks
from pipelines.engine.internals import follow_trace
from pipelines.engine.loading.loader import Loaded
from pipelines.engine.setup import Engine
from pipelines.engine.watching import slow_ranks
from vtok.framework import LOSSES
from vtok.rows.batch import Batch

# Salt: separates the draws of adapters' dropout from those of the visual heads.
DROPOUT = 0x64726F70


class Step(NamedTuple):
    """The result of a step, the same on every rank.

    Attributes:
        figures: Columns of ``log.jsonl``. ``data_wait`` and memory are each the largest of all ranks. ``rank_s`` are
            the seconds of each rank in which it did not wait for others.
        replaced: Samples of the step that could not be read: (position, bad key, reason) each.
        keys: Keys of its samples, in global order.
        applied: For each trained module, whether its weights changed; ``None`` if it took no part. The weights do not
            change if the loss or a gradient is not finite (see ``engine.finite``).
    """

    figures: dict[str, Any]
    replaced: list[tuple[int, str, str]]
    keys: list[str]
    applied: tuple[bool | None, ...] = ()


def train_step(engine: Engine, batches: Iterator[Loaded], plan: BatchPlan, with_decoder: bool = True) -> Step:
    """Takes one optimiser step of a VTok framework.

    Args:
        engine: The framework's engine.
        batches: Yields micro-batches on the device.
        plan: Sizes of the batch.
        with_decoder: Whether L_dec is part of this step. If not, its figure is ``None``.
    """

    def micro_step(batch: Batch) -> dict[str, Tensor]:
        follow_trace(engine, with_decoder)
        torch.manual_seed(batch.head_seeds[0] ^ DROPOUT)  # loaders draw from torch's generator too, when they start
        losses = engine(batch, with_decoder=with_decoder)
        backward(engine, losses["loss"])
        return losses

    step = accumulate(micro_step, (*LOSSES, "tokens"), batches, plan, engine.device)
    figures = step.figures
    tokens_per_sample = figures.pop("tokens") / plan.micro_batch_size
    figures["tokens_per_s"] = tokens_per_sample * figures["samples_per_s"]
    figures["grad_norm"] = float(engine.get_global_grad_norm())
    if not with_decoder:
        figures["loss_dec"] = None
    return step._replace(applied=(engine.was_step_applied(),))


def accumulate(
    micro_step: Callable[[Any], dict[str, Tensor]],
    names: Sequence[str],
    batches: Iterator[Loaded],
    plan: BatchPlan,
    device: torch.device,
) -> Step:
    """Takes ``plan.accumulation`` micro-steps, and averages their losses over micro-steps and ranks.

    Every micro-batch has the same number of samples, so this is the mean over the global batch. DeepSpeed averages the
    gradients in the same way.

    Args:
        micro_step: Runs forward and backward of a micro-batch; returns its losses, scalars by name.
        names: Names of the losses to average.
        batches: Yields micro-batches on the device.
        plan: Sizes of the batch.
        device: Device of the losses.
    """
    started, waited = time.perf_counter(), 0.0
    sums = torch.zeros(len(names), dtype=torch.float64, device=device)
    keys, replaced, cut = [], [], 0
    waiting.take()
    for _ in range(plan.accumulation):
        roll_call.doing(phase="waiting for data")
        asked = time.perf_counter()
        loaded = next(batches)
        waited += time.perf_counter() - asked
        roll_call.doing(phase="computing")
        losses = micro_step(loaded.batch)
        sums += torch.stack([losses[name].detach().double() for name in names])
        keys.append(loaded.batch.keys)
        replaced += loaded.replaced
        cut += loaded.cut

    means = (distributed.mean_over_ranks(sums) / plan.accumulation).tolist()
    own = max(0.0, time.perf_counter() - started - waiting.take())
    by_rank = distributed.gather_lists([keys, replaced, cut, own, {"waited": waited, **memory.used_gb()}])
    *_, seconds_by_rank, used = zip(*by_rank)
    all_keys, all_replaced, all_cut, *_ = zip(*plan.one_of_each_group(by_rank))
    seconds = time.perf_counter() - started
    batch_keys = in_global_order(all_keys)
    most = {name: max(rank[name] for rank in used) for name in used[0]}
    figures = dict(zip(names, means)) | {
        "samples_per_s": plan.global_batch_size / seconds,
        "data_wait": most.pop("waited") / seconds,
        "cut_texts": sum(all_cut),
        **most,
        **slow_ranks.columns(list(seconds_by_rank)),
        "batch_digest": batch_digest(batch_keys),
    }
    return Step(figures, [one for rank in all_replaced for one in rank], batch_keys)


def backward(engine: Engine, loss: Tensor) -> None:
    """Runs backward of a micro-batch's loss. DeepSpeed updates the weights after the last micro-batch of a step."""
    engine.backward(finite_on_all_ranks(loss))
    engine.step()
