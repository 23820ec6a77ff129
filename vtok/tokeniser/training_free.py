"""``training_free``: the key frame's grid and one pooled token per later step, without a new weight (paper, Table 3).

The pooled features of later frames lie where LLaVA's own projector expects CLIP's features to lie, so that a pretrained
model can be asked as it is.
"""

from torch import Tensor, nn

from vtok.config import require
from vtok.feature_scale import FeatureScale
from vtok.spatial_encoder import pool_grid
from vtok.tokeniser.vtok import VTokTokeniser


class PooledFrames(nn.Module):
    """Stands in ``g_phi``'s place: a later frame's mean feature is its token."""

    def __init__(self, feature_dim: int):
        super().__init__()
        self.residual_dim = feature_dim

    def pool(self, features: Tensor, key_features: Tensor) -> Tensor:
        """(n, h, w, d_v), and the key frames' features, which are not used -> (n, d_v)."""
        return pool_grid(features, 1).flatten(1)

    def forward(self, pooled: Tensor, scale: FeatureScale) -> Tensor:
        """(..., d_v), as it is whatever its ``scale``: it lies where the projector expects it."""
        return pooled


class TrainingFreeTokeniser(VTokTokeniser):
    """Frames to S + M tokens, as many as ``vtok`` has."""

    def build_motion_encoder(self, width: int) -> nn.Module:
        require(
            self.config.token_dim == width,
            f"tokeniser.strategy training_free adds no weights: set tokeniser.token_dim to the backbone's {width}",
        )
        return PooledFrames(width)
