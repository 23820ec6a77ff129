"""One optimiser step of the autoencoder and, once it takes part, of the discriminator."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pipelines.engine.batch_plan import BatchPlan
from pipelines.engine.loading.loader import Loaded
from pipelines.engine.setup import Engine
from pipelines.engine.stepping import Step, accumulate, backward
from pipelines.vidtok_training.clips import to_model
from pipelines.vidtok_training.data import Clips
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
        The step; ``applied`` tells of the autoencoder, then of the discriminator.
    """

    def micro_step(clips: Clips) -> dict[str, Tensor]:
        video = torch.cat([to_model(frames) for frames in clips.frames])
        torch.manual_seed(clips.seed)
        losses, reconstruction = engine(video, updates, lpips, critic and critic.module.patches)
        backward(engine, losses["loss"])
        if critic:
            judged = critic(video, reconstruction)
            backward(critic, judged["loss_disc"])
            losses |= judged
        return losses

    step = accumulate(micro_step, LOSSES + GAME if critic else LOSSES, batches, plan, engine.device)
    figures = dict.fromkeys(LOSSES + GAME) | step.figures
    figures["grad_norm"] = float(engine.get_global_grad_norm())
    figures["grad_norm_disc"] = float(critic.get_global_grad_norm()) if critic else None
    if critic and critic.was_step_applied():
        critic.module.measured.update(torch.tensor([figures["logits_real"], figures["logits_fake"]]))
    applied = (engine.was_step_applied(), critic.was_step_applied() if critic else None)
    return step._replace(figures=figures, applied=applied)
