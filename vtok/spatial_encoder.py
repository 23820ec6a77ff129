"""Spatial encoder: pools the key frame's features to g x g tokens (paper, eq. 13)."""

import torch.nn.functional as F
from torch import Tensor, nn


def pool_grid(features: Tensor, size: int) -> Tensor:
    """Average-pools features (n, h, w, d) adaptively to (n, size * size, d), row by row."""
    return F.adaptive_avg_pool2d(features.permute(0, 3, 1, 2), size).flatten(2).transpose(1, 2)


class SpatialEncoder(nn.Module):
    """Turns pooled features into tokens: the identity, or a linear layer if the widths differ."""

    def __init__(self, grid_size: int, feature_dim: int, token_dim: int):
        super().__init__()
        self.grid_size = grid_size
        self.linear = nn.Identity() if feature_dim == token_dim else nn.Linear(feature_dim, token_dim)

    def pool(self, key_features: Tensor) -> Tensor:
        """Pools (n, h, w, d_v) to (n, S, d_v). The result is frozen; the visual head learns to predict it."""
        return pool_grid(key_features, self.grid_size)

    def forward(self, pooled: Tensor) -> Tensor:
        """Maps (..., d_v) to (..., token_dim)."""
        return self.linear(pooled)
