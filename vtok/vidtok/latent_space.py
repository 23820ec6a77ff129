"""A VidTok inside the framework: as the video decoder's latent space, or as the tokeniser's feature extractor.

    FOLDER/config.json, diffusion_pytorch_model.safetensors     written by :func:`save_folder`

The configuration names such a folder as a decoder's ``vae``, or as the ``weights`` of a tokeniser whose backbone is
``vidtok``.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from vtok.config import ConfigError, require
from vtok.vidtok.config import VidTokConfig
from vtok.vidtok.kl import KL
from vtok.vidtok.model import VidTok
from vtok.weights.own_folder import CONFIG, save_model

WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class LatentConfig:
    """The attributes that diffusers' pipelines read from an autoencoder's ``config``.

    Attributes:
        latent_channels: Channels of a latent.
        temporal_compression_ratio: Frames per latent frame.
        spatial_compression_ratio: Pixels per latent pixel, along a side.
        scaling_factor: The latents times this should have unit variance.
    """

    latent_channels: int
    temporal_compression_ratio: int
    spatial_compression_ratio: int
    scaling_factor: float


class VidTokAutoencoder(nn.Module):
    """A causal ``kl`` VidTok with the interface of diffusers' ``AutoencoderKLHunyuanVideo``.

    It maps f k + 1 frames to k + 1 latent frames and back, where f is the compression of time.

    Args:
        vidtok: The model.
        scaling_factor: See :class:`LatentConfig`.

    Raises:
        ConfigError: The model is not causal, or its regulariser is not ``kl``.
    """

    config_name = CONFIG

    def __init__(self, vidtok: VidTok, scaling_factor: float = 1.0):
        super().__init__()
        config = vidtok.config
        require(config.is_causal, "a non-causal VidTok cannot encode the first frame alone: use a causal one")
        require(config.regulariser == "kl", "a decoder's latents are continuous: use a VidTok with the regulariser kl")
        self.vidtok = vidtok
        self.config = LatentConfig(config.z_channels, config.time_factor, config.space_factor, scaling_factor)
        self.temporal_compression_ratio = config.time_factor
        self.spatial_compression_ratio = config.space_factor

    @classmethod
    def from_config(cls, stored: dict[str, Any]) -> "VidTokAutoencoder":
        """Builds a model with random weights from the content of a folder's ``config.json``."""
        scale = stored.get("scaling_factor")
        if not isinstance(scale, (int, float)):
            raise ConfigError(f"the scaling_factor in a VidTok's config.json should be a number, not {scale!r}")
        return cls(VidTok(vidtok_config(stored)), scale)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.vidtok.decoder.last_layer.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.vidtok.decoder.last_layer.device

    def encode(self, x: Tensor) -> SimpleNamespace:
        """Encodes frames (B, 3, f k + 1, H, W) in [-1, 1].

        Returns:
            An object whose ``latent_dist`` has ``mean`` and ``std``, (B, C, k + 1, h, w) each, not scaled.
        """
        regulariser = self.vidtok.regularization
        assert isinstance(regulariser, KL)
        gaussian = regulariser.gaussian(self.vidtok.moments(x))
        mean, std = (part.movedim(-1, 1) for part in (gaussian.mean, gaussian.std))
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=std))

    def decode(self, z: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """Decodes unscaled latents (B, C, k + 1, h, w) to a tuple of one tensor: frames (B, 3, f k + 1, H, W)."""
        frames = self.config.temporal_compression_ratio * (z.shape[2] - 1) + 1
        return (self.vidtok.decode(z)[:, :, -frames:],)


def vidtok_config(stored: dict[str, Any]) -> VidTokConfig:
    """Returns the configuration in the content of a folder's ``config.json``.

    Raises:
        ConfigError: The content is that of another model.
    """
    names = {field.name for field in fields(VidTokConfig)}
    if not names <= stored.keys():
        raise ConfigError("its config.json does not describe a VidTok: vtok.vidtok.latent_space.save_folder writes one")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items() if name in names
    }
    return VidTokConfig(**values)


def save_folder(model: VidTok, folder: str | Path, scaling_factor: float = 1.0) -> None:
    """Writes a folder that the framework's configuration can name.

    Args:
        model: The model.
        folder: Created if it does not exist.
        scaling_factor: One over the standard deviation of the latents.
    """
    kind = VidTokAutoencoder.__name__
    save_model(model, model.config, kind, folder, WEIGHTS, scaling_factor=scaling_factor)
