"""The two that are trained, each in an engine of its own, and what a step asks of them."""

import torch
from torch import Tensor, nn

from vtok.vidtok import VidTok
from vtok.vidtok.fsq import FSQ
from vtok.vidtok.losses.adversarial import LeCAM, hinge_loss
from vtok.vidtok.losses.discriminator import PatchGAN
from vtok.vidtok.losses.objective import autoencoder_losses
from vtok.vidtok.losses.perceptual import LPIPS


class Autoencoder(nn.Module):
    """A VidTok and the learned log variance of its reconstruction error, (1,)."""

    def __init__(self, model: VidTok, fix_encoder: bool):
        super().__init__()
        self.model = model
        model.encoder.requires_grad_(not fix_encoder)
        self.log_variance = nn.Parameter(torch.zeros(1))
        self.measured = nn.Module()  # nothing

    def forward(
        self, video: Tensor, updates: int, lpips: LPIPS | None, discriminator: PatchGAN | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses, fp32 scalars, and the reconstruction, without gradients.

        Args:
            video: (B, 3, T, H, W) in [-1, 1].
            updates: of the weights so far.
            discriminator: not before its start; it gets no gradient from here.
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
    """A PatchGAN, and the averages of its logits."""

    def __init__(self, dims: int):
        super().__init__()
        self.patches, self.measured = PatchGAN(dims), LeCAM()

    def forward(self, video: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        """``loss_disc``, and the mean logits for real and reconstructed patches; fp32 scalars."""
        real, fake = self.patches(video), self.patches(reconstruction)
        loss = hinge_loss(real, fake) + self.measured(real, fake)
        return {"loss_disc": loss, "logits_real": real.detach().mean(), "logits_fake": fake.detach().mean()}
