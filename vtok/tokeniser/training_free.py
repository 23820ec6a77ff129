"""``training_free``: the key frame's grid and one pooled token per later step, without new weights (paper, Table 3).

A token of a later frame is the mean of CLIP's features. LLaVA's own projector was trained on CLIP's features, so a
pretrained model can read such tokens without training.
"""

from torch import Tensor

from vtok.config import require
from vtok.feature_scale import FeatureScale
from vtok.motion_encoder import StepEncoder
from vtok.spatial_encoder import pool_grid
from vtok.tokeniser.vtok import VTokTokeniser


class PooledFrames(StepEncoder):
    """The mean feature of a later frame is its token. It replaces ``g_phi``."""

    def __init__(self, feature_dim: int):
        super().__init__()
        self.residual_dim = feature_dim

    def pool(self, features: Tensor, key_features: Tensor) -> Tensor:
        """Pools the features (n, h, w, d_v) of later frames to (n, d_v). The key frames' features are not used."""
        return pool_grid(features, 1).flatten(1)

    def forward(self, pooled: Tensor, scale: FeatureScale) -> Tensor:
        """Returns ``pooled`` (..., d_v) unchanged, since the projector reads raw features."""
        return pooled


class TrainingFreeTokeniser(VTokTokeniser):
    """Turns frames into S + M tokens, as many as ``vtok``."""

    def build_motion_encoder(self, width: int) -> StepEncoder:
        require(
            self.config.token_dim == width,
            f"tokeniser.strategy training_free adds no weights: set tokeniser.token_dim to the backbone's {width}",
        )
        return PooledFrames(width)
