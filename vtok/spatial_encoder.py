"""Spatial encoder: the key frame's features, pooled to g x g tokens (paper, eq. 1)."""

import torch.nn.functional as F
from torch import Tensor, nn


def pool_grid(features: Tensor, size: int) -> Tensor:
    """Adaptive average pool of (n, h, w, d) to (n, size * size, d), row by row."""
    return F.adaptive_avg_pool2d(features.permute(0, 3, 1, 2), size).flatten(2).transpose(1, 2)


class SpatialEncoder(nn.Module):
    """Pooled features to tokens: the identity, or a linear layer when the widths differ."""

    def __init__(self, grid_size: int, feature_dim: int, token_dim: int):
        super().__init__()
        self.grid_size = grid_size
        self.linear = nn.Identity() if feature_dim == token_dim else nn.Linear(feature_dim, token_dim)

    def pool(self, key_features: Tensor) -> Tensor:
        """(n, h, w, d_v) -> (n, S, d_v): frozen, what the visual head learns to predict."""
        return pool_grid(key_features, self.grid_size)

    def forward(self, pooled: Tensor) -> Tensor:
        """(..., d_v) -> (..., token_dim)."""
        return self.linear(pooled)
