"""The autoencoder's loss."""

from torch import Tensor, nn

from vtok.vidtok.losses.adversarial import adaptive_weight, adversarial_loss, unchanged
from vtok.vidtok.losses.perceptual import LPIPS
from vtok.vidtok.model import RegLog

KL_WEIGHT = 1e-6


def nll_loss(x: Tensor, reconstruction: Tensor, log_variance: Tensor, lpips: LPIPS | None = None) -> Tensor:
    """Negative log-likelihood, but for a constant, of videos (B, 3, T, H, W) in [-1, 1]; per frame.

    rec / exp(log_variance) + log_variance, summed over a frame's values, where rec is their absolute error and, with
    ``lpips``, the frame's perceptual distance.

    Args:
        log_variance: scalar, learned.
    """
    error = (x - reconstruction).abs()
    if lpips is not None:
        frames, theirs = (video.transpose(1, 2).flatten(0, 1) for video in (x, reconstruction))
        distance = lpips(frames, theirs).unflatten(0, (x.shape[0], x.shape[2]))
        error = error + distance.view(x.shape[0], 1, x.shape[2], 1, 1)
    return (error / log_variance.exp() + log_variance).sum() / (x.shape[0] * x.shape[2])


def regulariser_loss(reg_log: RegLog) -> Tensor:
    """1e-6 times the divergence of the latents, or the codes' auxiliary loss."""
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
    """``loss``, with gradients, and its parts, without; scalars.

    Args:
        last_layer: weight of the decoder's last convolution.
        discriminator: not before its start; it gets no gradient from here.
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
