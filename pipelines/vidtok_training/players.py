"""The two trained modules, the autoencoder and the discriminator. Each runs in a DeepSpeed engine of its own."""

import torch
from torch import Tensor, nn

from vtok.vidtok import VidTok
from vtok.vidtok.fsq import FSQ
from vtok.vidtok.losses.adversarial import LeCAM, hinge_loss
from vtok.vidtok.losses.discriminator import PatchGAN
from vtok.vidtok.losses.objective import autoencoder_losses
from vtok.vidtok.losses.perceptual import LPIPS


class Autoencoder(nn.Module):
    """A VidTok with the learned log variance of its reconstruction error.

    Args:
        model: The VidTok.
        fix_encoder: Whether to freeze its encoder.

    Attributes:
        log_variance: The log variance, (1,).
        measured: Empty. The engine saves the buffers of a module of this name.
    """

    def __init__(self, model: VidTok, fix_encoder: bool):
        super().__init__()
        self.model = model
        model.encoder.requires_grad_(not fix_encoder)
        self.log_variance = nn.Parameter(torch.zeros(1))
        self.measured = nn.Module()

    def forward(
        self, video: Tensor, updates: int, lpips: LPIPS | None, discriminator: PatchGAN | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Reconstructs clips and computes the losses.

        Args:
            video: The clips, (B, 3, T, H, W) in [-1, 1].
            updates: Optimiser updates so far; the weight of FSQ's entropy depends on them.
            lpips: The perceptual network, or ``None``.
            discriminator: The discriminator, or ``None`` before its start. It gets no gradient from these losses.

        Returns:
            The losses, fp32 scalars, and the reconstruction (B, 3, T, H, W), fp32 without gradients.
        """
        if isinstance(self.model.regularization, FSQ):
            self.model.regularization.updates = updates
        last_layer = self.model.decoder.last_layer
        _, reconstruction, reg_log = self.model(video.to(last_layer.dtype))
        reconstruction = reconstruction.float()
        losses = autoencoder_losses(
            video, reconstruction, reg_log, self.log_variance.float(), last_layer, lpips, discriminator
        )
        return losses, reconstruction.detach()


class Discriminator(nn.Module):
    """A PatchGAN with LeCAM's averages of its logits.

    Args:
        dims: 2 for patches of frames, 3 for patches of space and time.
    """

    def __init__(self, dims: int):
        super().__init__()
        self.patches, self.measured = PatchGAN(dims), LeCAM()

    def forward(self, video: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        """Judges clips and their reconstructions, (B, 3, T, H, W) each.

        Returns:
            ``loss_disc``, and the mean logits ``logits_real`` and ``logits_fake``; fp32 scalars.
        """
        real, fake = self.patches(video), self.patches(reconstruction)
        loss = hinge_loss(real, fake) + self.measured(real, fake)
        return {"loss_disc": loss, "logits_real": real.detach().mean(), "logits_fake": fake.detach().mean()}
