"""The motion codec: an autoencoder of motion vectors whose latents are codes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.motion_codec.blocks import Block, Merge, Split
from vtok.motion_codec.codebook import Codebook, nearest, usage_gap
from vtok.motion_codec.config import MotionCodecConfig

COMMITMENT, USAGE = 0.25, 0.1  # weights of the losses


class Encoder(nn.Module):
    """Vectors to latents."""

    def __init__(self, config: MotionCodecConfig):
        super().__init__()
        channels = config.channels
        self.input = nn.Linear(2, channels)
        self.cell = nn.Parameter(0.02 * torch.randn(config.height, config.width, channels))
        self.time = nn.Parameter(0.02 * torch.randn(config.frames, 1, 1, channels))
        self.stages = nn.Sequential(
            *(nn.Sequential(Merge(channels, stride), *blocks(config)) for stride in config.strides)
        )
        self.output = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels), nn.Tanh(), nn.Linear(channels, config.code_dim)
        )

    def forward(self, vectors: Tensor) -> Tensor:
        """Maps vectors (B, T, 2, H, W) to latents (B, t, h, w, code_dim)."""
        x = self.input(vectors.movedim(2, -1).to(self.input.weight.dtype))
        return self.output(self.stages(x + self.cell + self.time))


class Decoder(nn.Module):
    """Codes' vectors to motion vectors."""

    def __init__(self, config: MotionCodecConfig):
        super().__init__()
        channels = config.channels
        self.input = nn.Linear(config.code_dim, channels)
        self.stages = nn.Sequential(
            *(nn.Sequential(*blocks(config), Split(channels, stride)) for stride in reversed(config.strides))
        )
        self.output = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels), nn.Tanh(), nn.Linear(channels, 2)
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Maps the vectors of codes (B, t, h, w, code_dim) to motion vectors (B, T, 2, H, W)."""
        return self.output(self.stages(self.input(codes.to(self.input.weight.dtype)))).movedim(-1, 2)


def blocks(config: MotionCodecConfig) -> list[Block]:
    """Builds the blocks of a stage. They work at its small size, where attention is cheap."""
    return [Block(config.channels, config.heads) for _ in range(config.blocks)]


class MotionTokens(nn.Module):
    """The frozen half of a codec: vectors to the vectors of their codes."""

    stays_fp32 = True  # see vtok.weights.precision

    def __init__(self, config: MotionCodecConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.codebook = Codebook(config.codes, config.code_dim)

    def forward(self, vectors: Tensor) -> Tensor:
        """Maps clips (B, T, 2, H, W) to (B, steps, cells, code_dim), fp32."""
        return self.codebook(self.encoder(vectors)).flatten(2, 3)


class MotionCodec(nn.Module):
    """The autoencoder. Its first half has the names of :class:`MotionTokens`."""

    def __init__(self, config: MotionCodecConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.codebook = Codebook(config.codes, config.code_dim)

    def encode(self, vectors: Tensor) -> Tensor:
        """Returns the codes (B, t, h, w) of clips (B, T, 2, H, W)."""
        return nearest(self.encoder(vectors), F.normalize(self.codebook.weight.float(), dim=-1))

    def decode(self, codes: Tensor) -> Tensor:
        """Maps codes (B, t, h, w) to motion vectors (B, T, 2, H, W)."""
        return self.decoder(F.normalize(self.codebook.weight.float(), dim=-1)[codes])

    def training_losses(self, vectors: Tensor) -> dict[str, Tensor]:
        """Computes the losses of clips (B, T, 2, H, W), scalars in fp32.

        The decoder reads the codes' vectors, and gradients pass straight through to the latents. The codes' vectors
        follow the latents, and the latents keep to their codes, by squared distance (van den Oord et al., 2017).

        Returns:
            ``loss``; ``loss_rec``, the mean squared error in squared percent of the frame; ``loss_codes``, the distance
            of latents and codes; ``loss_usage``; ``codes_used``, the share of the codebook that the clips use.
        """
        latents = F.normalize(self.encoder(vectors).float(), dim=-1)
        table = F.normalize(self.codebook.weight.float(), dim=-1)
        codes = nearest(latents, table)
        chosen = table[codes]
        decoded = self.decoder(latents + (chosen - latents).detach()).float()
        losses = {
            "loss_rec": F.mse_loss(decoded, vectors.float()),
            "loss_codes": F.mse_loss(chosen, latents.detach()) + COMMITMENT * F.mse_loss(latents, chosen.detach()),
            "loss_usage": usage_gap(latents.flatten(0, -2), table),
        }
        total = losses["loss_rec"] + losses["loss_codes"] + USAGE * losses["loss_usage"]
        used = torch.bincount(codes.flatten(), minlength=len(table)).count_nonzero() / len(table)
        return {"loss": total, **losses, "codes_used": used}
