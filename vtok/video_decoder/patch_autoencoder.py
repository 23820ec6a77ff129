"""A linear autoencoder of videos: projects blocks of pixels onto their principal axes.

It has the interface of HunyuanVideo's autoencoder. Small studies use it, since training an autoencoder would cost more
than training the model they study.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

CERTAIN = -30.0  # log variance of the posterior, the smallest that diffusers allows


class PatchAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]  # the bases of diffusers' own models
    """Maps blocks of t frames by s x s pixels to ``latent_channels`` numbers and back. The first frame repeats t times.

    Args:
        latent_channels: Principal axes that are kept.
        spatial_compression_ratio, temporal_compression_ratio: s and t.
        scaling_factor: Scale of all latents for the diffusion transformer. Each axis also has a scale, a parameter.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        spatial_compression_ratio: int = 8,
        temporal_compression_ratio: int = 4,
        scaling_factor: float = 1.0,
    ):
        super().__init__()
        self.spatial_compression_ratio = spatial_compression_ratio
        self.temporal_compression_ratio = temporal_compression_ratio
        size = 3 * temporal_compression_ratio * spatial_compression_ratio**2
        self.mean = nn.Parameter(torch.zeros(size))
        self.axes = nn.Parameter(torch.eye(latent_channels, size))
        self.scale = nn.Parameter(torch.ones(latent_channels))

    @torch.no_grad()
    def fit(self, blocks: Tensor) -> None:
        """Sets mean, axes and scales from blocks (n, size), n well above size.

        It scales each axis by √std: between raw PCA and full whitening.
        """
        self.mean.copy_(blocks.mean(0))
        covariance = torch.cov(blocks.double().T)
        variance, axes = torch.linalg.eigh(covariance)
        kept = range(len(variance) - 1, len(variance) - 1 - len(self.axes), -1)
        self.axes.copy_(axes.T[list(kept)])
        deviation = variance[list(kept)].clamp_min(1e-12).sqrt()
        self.scale.copy_(deviation.sqrt() * deviation.mean().sqrt())

    def blocks(self, video: Tensor) -> Tensor:
        """Cuts (B, 3, t k + 1, H, W) into blocks (B, k + 1, H / s, W / s, size)."""
        t, s = self.temporal_compression_ratio, self.spatial_compression_ratio
        video = torch.cat([video[:, :, :1].expand(-1, -1, t - 1, -1, -1), video], dim=2)
        batch, _, frames, height, width = video.shape
        parts = video.reshape(batch, 3, frames // t, t, height // s, s, width // s, s)
        return parts.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)

    def forward(self, x: Tensor, to_blocks: bool) -> Tensor:
        """Maps blocks (..., size) to latents (..., C), or back. Under ZeRO-3 the weights are whole only in here."""
        if to_blocks:
            return (x * self.scale) @ self.axes + self.mean
        return (x - self.mean) @ self.axes.T / self.scale

    def encode(self, x: Tensor) -> AutoencoderKLOutput:
        """Encodes (B, 3, t k + 1, H, W) in -1..1 to a narrow posterior over (B, C, k + 1, H / s, W / s)."""
        latents = self(self.blocks(x), to_blocks=False).permute(0, 4, 1, 2, 3)
        moments = torch.cat([latents, torch.full_like(latents, CERTAIN)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments))

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Decodes (B, C, k + 1, h, w) to (B, 3, t k + 1, H, W)."""
        t, s = self.temporal_compression_ratio, self.spatial_compression_ratio
        blocks = self(z.permute(0, 2, 3, 4, 1), to_blocks=True)
        batch, frames, height, width, _ = blocks.shape
        parts = blocks.reshape(batch, frames, height, width, 3, t, s, s).permute(0, 4, 1, 5, 2, 6, 3, 7)
        video = parts.reshape(batch, 3, frames * t, height * s, width * s)
        video = torch.cat([video[:, :, :t].mean(2, keepdim=True), video[:, :, t:]], dim=2).clamp(-1, 1)
        return DecoderOutput(sample=video) if return_dict else (video,)
