"""The autoencoder's loss."""

from torch import Tensor, nn

from vtok.vidtok.losses.adversarial import adaptive_weight, adversarial_loss, unchanged
from vtok.vidtok.losses.perceptual import LPIPS
from vtok.vidtok.model import RegLog

KL_WEIGHT = 1e-6


def nll_loss(x: Tensor, reconstruction: Tensor, log_variance: Tensor, lpips: LPIPS | None = None) -> Tensor:
    """Returns the negative log-likelihood of videos, up to a constant, per frame: a scalar.

    Each value contributes rec / exp(log_variance) + log_variance. Here rec is the absolute error of the value, plus the
    perceptual distance of its frame with ``lpips``. Contributions are summed over a frame and averaged over frames.

    Args:
        x: Videos (B, 3, T, H, W) in [-1, 1].
        reconstruction: Their reconstructions, of the same shape.
        log_variance: Learned, (1,).
        lpips: The perceptual network.
    """
    error = (x - reconstruction).abs()
    if lpips is not None:
        frames, theirs = (video.transpose(1, 2).flatten(0, 1) for video in (x, reconstruction))
        distance = lpips(frames, theirs).unflatten(0, (x.shape[0], x.shape[2]))
        error = error + distance.view(x.shape[0], 1, x.shape[2], 1, 1)
    return (error / log_variance.exp() + log_variance).sum() / (x.shape[0] * x.shape[2])


def regulariser_loss(reg_log: RegLog) -> Tensor:
    """Returns 1e-6 times the KL divergence of the latents, or FSQ's auxiliary loss: a scalar."""
    return KL_WEIGHT * reg_log["kl_loss"] if "kl_loss" in reg_log else reg_log["aux_loss"]


def autoencoder_losses(
    x: Tensor,
    reconstruction: Tensor,
    reg_log: RegLog,
    log_variance: Tensor,
    last_layer: Tensor,
    lpips: LPIPS | None = None,
    discriminator: nn.Module | None = None,
) -> dict[str, Tensor]:
    """Returns ``loss``, with gradients, and its parts, without: scalars.

    Args:
        x: Videos (B, 3, T, H, W) in [-1, 1].
        reconstruction: Their reconstructions, of the same shape.
        reg_log: The regulariser's log.
        log_variance: Learned, (1,).
        last_layer: Weight of the decoder's last convolution.
        lpips: The perceptual network.
        discriminator: ``None`` before its start. Its parameters get no gradient from this loss.
    """
    nll = nll_loss(x, reconstruction, log_variance, lpips)
    regulariser = regulariser_loss(reg_log)
    parts = {"loss_nll": nll, "loss_reg": regulariser, "l1": (x - reconstruction).abs().mean()}
    loss = nll + regulariser
    if discriminator is not None:
        adversarial = adversarial_loss(unchanged(discriminator, reconstruction))
        weight = adaptive_weight(nll, adversarial, last_layer)
        parts |= {"loss_adv": adversarial, "adv_weight": weight}
        loss = loss + weight * adversarial
    return {"loss": loss} | {name: part.detach() for name, part in parts.items()}
