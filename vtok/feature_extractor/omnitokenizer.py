"""An OmniTokenizer as the backbone: the vectors of its codes."""

import torch
from torch import Tensor

from vtok.config import VTokConfig, require
from vtok.feature_extractor.base import FeatureExtractor
from vtok.omnitokenizer.checkpoint import omni_location, omni_part, stored_config
from vtok.omnitokenizer.config import OmniTokenizerConfig
from vtok.omnitokenizer.model import Encoding, to_model
from vtok.weights import Part, ReadConfig


class OmniTokenizerFeatures(FeatureExtractor):
    """The encoder and the codebook. It stays fp32, so that codes do not depend on the precision of a run.

    Raises:
        ConfigError: A token would have less than one patch.
    """

    stays_fp32 = True  # see vtok.weights.precision

    def __init__(self, config: OmniTokenizerConfig, grid_size: int):
        super().__init__()
        require(grid_size <= config.grid, f"tokeniser.spatial_grid_size should be at most {config.grid}, its patches")
        self.tokenizer = Encoding(config)
        self.width, self.image_size = config.codebook_dim, config.resolution

    @classmethod
    def empty(cls, config: VTokConfig, read_config: ReadConfig) -> "OmniTokenizerFeatures":
        if config.weights is None:
            return cls(OmniTokenizerConfig(), config.spatial_grid_size)
        sizes = stored_config(config.weights, read_config)
        with omni_location(config.weights).building("sizes"):
            return cls(sizes, config.spatial_grid_size)

    @staticmethod
    def part(config: VTokConfig) -> Part:
        return omni_part(config.named_weights).below("tokenizer.")

    def forward(self, *frames: Tensor) -> Tensor:
        """Encodes images (n, 3, image_size, image_size), ``uint8`` or in [-0.5, 0.5], to (n, grid, grid, d_v)."""
        (images,) = frames
        return self.video(images[:, None])[:, 0]

    def video(self, frames: Tensor) -> Tensor:
        """Encodes videos (B, 1 + 4 k, 3, image_size, image_size) to codes' vectors (B, 1 + k, grid, grid, d_v)."""
        video = to_model(frames) if frames.dtype == torch.uint8 else frames.transpose(1, 2)
        return self.tokenizer(video)[1]
