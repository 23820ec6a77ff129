"""A VidTok with FSQ as the backbone: the latents of each frame before rounding."""

import torch
from torch import Tensor

from vtok.config import VTokConfig, require
from vtok.feature_extractor.base import FeatureExtractor, backbone_location
from vtok.vidtok import chunks
from vtok.vidtok.config import VidTokConfig
from vtok.vidtok.encoder import Encoder
from vtok.vidtok.latent_space import vidtok_config
from vtok.weights import DIFFUSERS_FILES, Part, ReadConfig


class VidTokFeatures(FeatureExtractor):
    """The encoder alone.

    Its image size makes each spatial token one latent pixel, and therefore one code.

    Raises:
        ConfigError: The model is not causal, has no FSQ, or its channels differ in their number of levels.
    """

    def __init__(self, config: VidTokConfig, encoder: Encoder, grid_size: int):
        super().__init__()
        require(config.is_causal and config.regulariser == "fsq", "the backbone vidtok takes a causal VidTok with fsq")
        require(
            len(set(config.levels)) == 1, "the backbone vidtok takes an FSQ whose channels all have the same levels"
        )
        self.config, self.encoder = config, encoder
        self.width, self.levels = config.z_channels, config.levels[0]
        self.image_size = grid_size * config.space_factor

    @classmethod
    def empty(cls, config: VTokConfig, read_config: ReadConfig) -> "VidTokFeatures":
        where = backbone_location("VidTok", config)
        stored = read_config(where, "config.json")
        with where.building("config.json"):
            vidtok = vidtok_config(stored)
            encoder = Encoder(vidtok)
        return cls(vidtok, encoder, config.spatial_grid_size)

    @staticmethod
    def part(config: VTokConfig) -> Part:
        return Part(backbone_location("VidTok", config), DIFFUSERS_FILES, {"encoder.": ("encoder.",)})

    def forward(self, *frames: Tensor) -> Tensor:
        """Encodes frames (n, 3, image_size, image_size), ``uint8`` or in [-1, 1], to (n, grid, grid, d_v)."""
        (pixels,) = frames
        if pixels.dtype == torch.uint8:
            pixels = pixels / 127.5 - 1
        images = pixels.movedim(1, -1).unsqueeze(1).to(next(self.encoder.parameters()).dtype)
        return chunks.encode_chunk(self.encoder, images, chunks.start_encoding(self.config, 1)).squeeze(1)
