"""A VidTok where the framework has another model: its latents for the video decoder, its codes for the language model.

    FOLDER/config.json, diffusion_pytorch_model.safetensors     what :func:`save_folder` writes

A decoder's ``vae`` may name such a folder, and so may a tokeniser with the backbone ``vidtok``.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from vtok.config import ConfigError, require
from vtok.vidtok import chunks
from vtok.vidtok.checkpoint import save_weights
from vtok.vidtok.config import VidTokConfig
from vtok.vidtok.model import VidTok

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class LatentConfig:
    """What diffusers' pipelines ask an autoencoder; the latents times ``scaling_factor`` should have unit variance."""

    latent_channels: int
    temporal_compression_ratio: int
    spatial_compression_ratio: int
    scaling_factor: float


class VidTokAutoencoder(nn.Module):
    """A causal VidTok as diffusers' HunyuanVideo autoencoder is used: 4k + 1 frames to k + 1 latents, and back."""

    config_name = CONFIG

    def __init__(self, vidtok: VidTok, scaling_factor: float = 1.0):
        super().__init__()
        config = vidtok.config
        require(config.is_causal, "a non-causal VidTok has no latent frame for a first frame: use a causal one")
        require(config.regulariser == "kl", "a decoder's latents are continuous: use a VidTok with the regulariser kl")
        self.vidtok = vidtok
        self.config = LatentConfig(config.z_channels, config.time_factor, config.space_factor, scaling_factor)
        self.temporal_compression_ratio = config.time_factor
        self.spatial_compression_ratio = config.space_factor

    @classmethod
    def from_config(cls, stored: dict[str, Any]) -> "VidTokAutoencoder":
        return cls(VidTok(vidtok_config(stored)), stored["scaling_factor"])

    @property
    def dtype(self) -> torch.dtype:
        return self.vidtok.decoder.last_layer.dtype

    @property
    def device(self) -> torch.device:
        return self.vidtok.decoder.last_layer.device

    def encode(self, x: Tensor) -> SimpleNamespace:
        """(B, 3, 4k + 1, H, W) in [-1, 1]; ``latent_dist`` has ``mean`` and ``std``."""
        gaussian = self.vidtok.regularization.gaussian(self.vidtok.moments(x))
        mean, std = (part.movedim(-1, 1) for part in (gaussian.mean, gaussian.std))
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=std))

    def decode(self, z: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """(B, C, k + 1, h, w), not scaled, to (B, 3, 4k + 1, H, W)."""
        frames = self.config.temporal_compression_ratio * (z.shape[2] - 1) + 1
        return (self.vidtok.decode(z)[:, :, -frames:],)


class VidTokFeatures(nn.Module):
    """A VidTok with FSQ as the tokeniser's feature extractor: each frame's latents before they are rounded.

    Frames have the size at which each spatial token is one latent pixel, and so one code.
    """

    temporal_patch = 1

    def __init__(self, config: VidTokConfig, encoder: nn.Module, grid_size: int):
        super().__init__()
        require(config.is_causal and config.regulariser == "fsq", "the backbone vidtok takes a causal VidTok with fsq")
        require(len(set(config.levels)) == 1, "the backbone vidtok takes an FSQ with as many levels in each channel")
        self.config, self.encoder = config, encoder
        self.width, self.levels = config.z_channels, config.levels[0]
        self.image_size = grid_size * config.space_factor

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, image_size, image_size), ``uint8`` or in [-1, 1], to (n, grid, grid, d_v)."""
        if pixels.dtype == torch.uint8:
            pixels = pixels / 127.5 - 1
        images = pixels.movedim(1, -1).unsqueeze(1).to(next(self.encoder.parameters()).dtype)
        return chunks.encode_chunk(self.encoder, images, chunks.start_encoding(self.config, 1)).squeeze(1)


def vidtok_config(stored: dict[str, Any]) -> VidTokConfig:
    """From a folder's ``config.json``; raises ConfigError if it is another model's."""
    names = {field.name for field in fields(VidTokConfig)}
    if not names <= stored.keys():
        raise ConfigError("its config.json is not of a VidTok: vtok.vidtok.latent_space.save_folder writes one")
    return VidTokConfig(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in stored.items() if name in names}
    )


def save_folder(model: VidTok, folder: str | Path, scaling_factor: float = 1.0) -> None:
    """Write a folder that the framework's configuration can name.

    Args:
        scaling_factor: one over the standard deviation of the latents.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / WEIGHTS)
    described = {"_class_name": VidTokAutoencoder.__name__, "scaling_factor": scaling_factor, **asdict(model.config)}
    (folder / CONFIG).write_text(json.dumps(described, indent=2))
