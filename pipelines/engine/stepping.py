"""One optimiser step: micro-batches forward and backward, then the update."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch

from pipelines.engine import distributed
from pipelines.engine.batch_plan import BatchPlan
from pipelines.engine.finite import finite_on_all_ranks
from pipelines.engine.loading.loader import Loaded
from pipelines.engine.setup import Engine
from pipelines.engine.traces import follow_trace
from pipelines.engine.watching import memory
from pipelines.engine.watching.metrics import batch_digest, in_global_order

LOSSES = ("loss", "loss_under", "loss_vis_lm", "loss_dec")


class Step(NamedTuple):
    """What a step did, the same on every rank.

    Attributes:
        figures: columns of ``log.jsonl``; waiting and memory are those of the rank with the most.
        replaced: samples of it that could not be read: (position, bad key, reason) each.
        keys: of its samples, in global order.
        applied: whether the weights changed; not where the loss or a gradient is not finite (see ``engine.finite``).
    """

    figures: dict
    replaced: list[tuple[int, str, str]]
    keys: list[str]
    applied: bool


def train_step(engine: Engine, batches: Iterator[Loaded], plan: BatchPlan, with_decoder: bool = True) -> Step:
    """Take ``plan.accumulation`` micro-batches, which are on the device, from ``batches`` and make one update of them.

    Every micro-batch has the same number of samples, so averaging over micro-steps and ranks (which DeepSpeed does to
    the gradients) gives the mean over the global batch.

    Args:
        with_decoder: whether L_dec is part of this step; its figure is ``None`` if not.
    """
    started, waited = time.perf_counter(), 0.0
    sums = torch.zeros(len(LOSSES) + 1, dtype=torch.float64, device=engine.device)
    keys, replaced = [], []
    for _ in range(plan.accumulation):
        asked = time.perf_counter()
        loaded = next(batches)
        waited += time.perf_counter() - asked
        follow_trace(engine, with_decoder)
        losses = engine(loaded.batch, with_decoder=with_decoder)
        engine.backward(finite_on_all_ranks(losses["loss"]))
        engine.step()
        sums += torch.stack([losses[name].detach().double() for name in (*LOSSES, "tokens")])
        keys.append(loaded.batch.keys)
        replaced += loaded.replaced

    *losses, tokens = (distributed.mean_over_ranks(sums) / plan.accumulation).tolist()
    by_rank = distributed.gather_lists([keys, replaced, {"waited": waited, **memory.used_gb()}])
    all_keys, all_replaced, used = zip(*by_rank)
    seconds = time.perf_counter() - started
    batch_keys = in_global_order(all_keys)
    most = {name: max(rank[name] for rank in used) for name in used[0]}
    figures = dict(zip(LOSSES, losses)) | {
        "grad_norm": float(engine.get_global_grad_norm()),
        "samples_per_s": plan.global_batch_size / seconds,
        "tokens_per_s": tokens * plan.accumulation * plan.ranks / seconds,
        "data_wait": most.pop("waited") / seconds,
        **most,
        "batch_digest": batch_digest(batch_keys),
    }
    if not with_decoder:
        figures["loss_dec"] = None
    return Step(figures, [one for rank in all_replaced for one in rank], batch_keys, engine.was_step_applied())
