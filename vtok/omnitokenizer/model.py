"""OmniTokenizer's autoencoder. Tensors are channels last inside; parameters have the published names."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.motion_codec.codebook import usage_gap
from vtok.omnitokenizer.config import OmniTokenizerConfig
from vtok.omnitokenizer.layers import Transformer

COMMITMENT, USAGE = 1.0, 0.01  # weights of the losses; the first as published


class Patches(nn.Module):
    """Cuts a video (B, 3, T, H, W) into patches (B, T / frames, rows, columns, 3 * frames * side * side)."""

    def __init__(self, frames: int, side: int):
        super().__init__()
        self.frames, self.side = frames, side

    def forward(self, video: Tensor) -> Tensor:
        parts = video.unflatten(2, (-1, self.frames)).unflatten(4, (-1, self.side)).unflatten(6, (-1, self.side))
        return parts.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


class Pixels(nn.Module):
    """Inverts :class:`Patches`."""

    def __init__(self, frames: int, side: int):
        super().__init__()
        self.frames, self.side = frames, side

    def forward(self, patches: Tensor) -> Tensor:
        parts = patches.unflatten(-1, (3, self.frames, self.side, self.side)).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return parts.flatten(2, 3).flatten(3, 4).flatten(4, 5)


class Encoder(nn.Module):
    """Videos to latents. The first frame is patched alone, so that an image is a video of one frame."""

    def __init__(self, config: OmniTokenizerConfig):
        super().__init__()
        side, frames, dim = config.patch_size, config.temporal_patch_size, config.embedding_dim
        self.temporal_patch_size = frames
        self.to_patch_emb_first_frame = embedding(1, side, dim)
        self.to_patch_emb = embedding(frames, side, dim)
        self.enc_spatial_transformer = Transformer(config, config.enc_block)
        self.enc_temporal_transformer = Transformer(config, "t" * config.temporal_depth, causal=True)

    def forward(self, video: Tensor) -> Tensor:
        """Maps (B, 3, 1 + k * temporal_patch_size, H, W) in [-0.5, 0.5] to (B, 1 + k, rows, columns, dim)."""
        later = video[:, :, 1:]
        if not later.shape[2]:  # an image runs the same modules, since ranks have to, and drops what they give
            later = video.new_zeros(*video.shape[:2], self.temporal_patch_size, *video.shape[3:])
        embedded = torch.cat([self.to_patch_emb_first_frame(video[:, :, :1]), self.to_patch_emb(later)], dim=1)
        patches = embedded[:, : 1 + (video.shape[2] - 1) // self.temporal_patch_size]
        batch, time, rows, columns, _ = shape = patches.shape
        x = self.enc_spatial_transformer(patches.flatten(2, 3).flatten(0, 1), shape[:4])
        x = x.view(batch, time, rows * columns, -1).transpose(1, 2).flatten(0, 1)
        x = self.enc_temporal_transformer(x, shape[:4])
        return x.view(batch, rows, columns, time, -1).movedim(3, 1)


class Decoder(nn.Module):
    """Latents to videos."""

    def __init__(self, config: OmniTokenizerConfig):
        super().__init__()
        side, frames, dim = config.patch_size, config.temporal_patch_size, config.embedding_dim
        self.dec_spatial_transformer = Transformer(config, config.dec_block)
        self.dec_temporal_transformer = Transformer(config, "t" * config.temporal_depth, causal=True)
        self.to_pixels_first_frame = nn.Sequential(nn.Linear(dim, 3 * side**2), Pixels(1, side))
        self.to_pixels = nn.Sequential(nn.Linear(dim, 3 * frames * side**2), Pixels(frames, side))

    def forward(self, latents: Tensor) -> Tensor:
        """Maps (B, 1 + k, rows, columns, dim) to a video (B, 3, 1 + k * temporal_patch_size, H, W)."""
        batch, time, rows, columns, _ = shape = latents.shape
        x = latents.flatten(2, 3).transpose(1, 2).flatten(0, 1)
        x = self.dec_temporal_transformer(x, shape[:4])
        x = x.view(batch, rows * columns, time, -1).transpose(1, 2).flatten(0, 1)
        x = self.dec_spatial_transformer(x, shape[:4]).view(shape)
        first = self.to_pixels_first_frame(x[:, :1])
        return torch.cat([first, self.to_pixels(x[:, 1:])], dim=2) if time > 1 else first


def embedding(frames: int, side: int, dim: int) -> nn.Sequential:
    """Builds the layers that embed patches."""
    pixels = 3 * frames * side**2
    return nn.Sequential(Patches(frames, side), nn.LayerNorm(pixels), nn.Linear(pixels, dim), nn.LayerNorm(dim))


class Codebook(nn.Module):
    """The vectors of the codes. A published checkpoint holds running means of latents; here they are learned."""

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.embeddings = nn.Parameter(F.normalize(torch.randn(size, dim), dim=-1))

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the code (...) that is nearest to each latent (..., D), and its vector (..., D), fp32."""
        table = self.embeddings.float()
        distance = table.square().sum(-1) - 2 * latents.float() @ table.T
        codes = distance.argmin(-1)
        return codes, table[codes]


class Encoding(nn.Module):
    """The half of an OmniTokenizer that makes codes."""

    def __init__(self, config: OmniTokenizerConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.pre_vq_conv = nn.Sequential(nn.Identity(), nn.Linear(config.embedding_dim, config.codebook_dim))
        self.codebook = Codebook(config.n_codes, config.codebook_dim)

    def latents(self, video: Tensor) -> Tensor:
        """Returns the latents before quantisation, of length 1: (B, 1 + k, rows, columns, codebook_dim), fp32."""
        return F.normalize(self.pre_vq_conv(self.encoder(video.to(dtype_of(self.encoder)))).float(), dim=-1)

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes a video (B, 3, T, H, W) in [-0.5, 0.5] to its codes (B, 1 + k, rows, columns) and their vectors."""
        return self.codebook(self.latents(video))


class OmniTokenizer(Encoding):
    """The autoencoder."""

    def __init__(self, config: OmniTokenizerConfig):
        super().__init__(config)
        self.post_vq_conv = nn.Sequential(nn.Identity(), nn.Linear(config.codebook_dim, config.embedding_dim))
        self.decoder = Decoder(config)

    def decode(self, vectors: Tensor) -> Tensor:
        """Decodes the vectors of codes (B, 1 + k, rows, columns, codebook_dim) to a video."""
        return self.decoder(self.post_vq_conv(vectors.to(dtype_of(self.post_vq_conv))))

    def losses(self, video: Tensor) -> dict[str, Tensor]:
        """Computes the losses of videos (B, 3, T, H, W): reconstruction, codes and use of the codebook.

        Reconstruction is the squared error on the scale of [-1, 1]. The published training has the absolute error
        beside a perceptual loss. Without that one the absolute error leaves small things out for thousands of steps.
        """
        latents = self.latents(video)
        codes, chosen = self.codebook(latents)
        rebuilt = self.decode(latents + (chosen - latents).detach()).float()
        follow, keep = F.mse_loss(chosen, latents.detach()), F.mse_loss(latents, chosen.detach())
        table = F.normalize(self.codebook.embeddings.float(), dim=-1)
        return {
            "loss_rec": F.mse_loss(2 * rebuilt, 2 * video.float()),
            "loss_codes": follow + COMMITMENT * keep,
            "loss_usage": usage_gap(latents.flatten(0, -2), table),
            "codes_used": torch.bincount(codes.flatten(), minlength=len(table)).count_nonzero() / len(table),
        }

    def training_losses(self, video: Tensor) -> dict[str, Tensor]:
        """Trains videos and images jointly: the mean losses of videos (B, 3, T, H, W) and of their first frames alone.

        Returns:
            ``loss`` and its parts, scalars in fp32.
        """
        both = self.losses(video), self.losses(video[:, :, :1])
        mean = {name: (both[0][name] + both[1][name]) / 2 for name in both[0]}
        total = mean["loss_rec"] + mean["loss_codes"] + USAGE * mean["loss_usage"]
        return {"loss": total, **mean, "loss_image": both[1]["loss_rec"]}


def dtype_of(module: nn.Module) -> torch.dtype:
    """Returns the dtype of a module's parameters."""
    return next(module.parameters()).dtype


def initialise(model: nn.Module) -> None:
    """Draws the weights as the published training does: linear layers with a deviation of 0.02, biases zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def to_model(frames: Tensor) -> Tensor:
    """Maps frames (..., T, 3, H, W) ``uint8`` to a video (..., 3, T, H, W) in [-0.5, 0.5]."""
    return frames.transpose(-4, -3).float() / 255 - 0.5


def whole_patches(num_frames: int, frames: int) -> int:
    """Returns how many frames 1 + k * frames cover ``num_frames``."""
    return 1 + frames * math.ceil((num_frames - 1) / frames)
