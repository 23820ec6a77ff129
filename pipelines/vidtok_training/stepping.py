"""One optimiser step of the autoencoder and, after its start, of the discriminator, on the same reconstructions."""

import time
from collections.abc import Iterator

import torch

from pipelines.engine import distributed
from pipelines.engine.batch_plan import BatchPlan
from pipelines.engine.finite import finite_on_all_ranks
from pipelines.engine.loading.loader import Loaded
from pipelines.engine.setup import Engine
from pipelines.engine.stepping import Step
from pipelines.engine.watching import memory
from pipelines.engine.watching.metrics import batch_digest, in_global_order
from pipelines.vidtok_training.clips import to_model
from vtok.vidtok.losses.perceptual import LPIPS

LOSSES = ("loss", "loss_nll", "loss_reg", "l1")
GAME = ("loss_adv", "adv_weight", "loss_disc", "logits_real", "logits_fake")  # known once the discriminator takes part


def train_step(
    engine: Engine,
    critic: Engine | None,
    batches: Iterator[Loaded],
    plan: BatchPlan,
    updates: int,
    lpips: LPIPS | None,
) -> Step:
    """Makes one update from ``plan.accumulation`` micro-batches.

    Noise is drawn, and losses are balanced, for each micro-batch separately. So with micro-batches of one size a step
    is the same on any number of ranks.

    Args:
        engine: The autoencoder's engine.
        critic: The discriminator's engine, or ``None`` before its start.
        batches: Yields micro-batches on the device.
        plan: The sizes of the batch.
        updates: Updates of the autoencoder so far.
        lpips: The perceptual network, or ``None``.

    Returns:
        The figures of the step, the same on every rank.
    """
    started, waited = time.perf_counter(), 0.0
    names = LOSSES + GAME if critic else LOSSES
    sums = torch.zeros(len(names), dtype=torch.float64, device=engine.device)
    keys, replaced = [], []
    for _ in range(plan.accumulation):
        asked = time.perf_counter()
        loaded = next(batches)
        waited += time.perf_counter() - asked
        clips = loaded.batch
        video = torch.cat([to_model(frames) for frames in clips.frames])
        torch.manual_seed(clips.seed)
        losses, reconstruction = engine(video, updates, lpips, critic and critic.module.patches)
        engine.backward(finite_on_all_ranks(losses["loss"]))
        engine.step()
        if critic:
            judged = critic(video, reconstruction)
            critic.backward(finite_on_all_ranks(judged["loss_disc"]))
            critic.step()
            losses |= judged
        sums += torch.stack([losses[name].detach().double() for name in names])
        keys.append(clips.keys)
        replaced += loaded.replaced

    means = dict(zip(names, (distributed.mean_over_ranks(sums) / plan.accumulation).tolist()))
    applied = engine.was_step_applied() and (critic is None or critic.was_step_applied())
    if critic and critic.was_step_applied():
        critic.module.measured.update(torch.tensor([means["logits_real"], means["logits_fake"]]))
    by_rank = distributed.gather_lists([keys, replaced, {"waited": waited, **memory.used_gb()}])
    all_keys, all_replaced, used = zip(*by_rank)
    seconds = time.perf_counter() - started
    batch_keys = in_global_order(all_keys)
    most = {name: max(rank[name] for rank in used) for name in used[0]}
    figures = (
        dict.fromkeys(LOSSES + GAME)
        | means
        | {
            "grad_norm": float(engine.get_global_grad_norm()),
            "grad_norm_disc": float(critic.get_global_grad_norm()) if critic else None,
            "samples_per_s": plan.global_batch_size / seconds,
            "data_wait": most.pop("waited") / seconds,
            **most,
            "batch_digest": batch_digest(batch_keys),
        }
    )
    return Step(figures, [one for rank in all_replaced for one in rank], batch_keys, applied)
