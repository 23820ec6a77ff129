"""Motion encoder: one token per later frame, from its residual to the key frame (paper, eq. 2).

    m_t = g_phi(pool(F(x_t) - F(x_key)))

The pooled residual is standardised first: most of a frame stands still, so that a raw one is a small part of a feature,
and what only it tells would be learned late.

To try another motion encoder, change :meth:`MotionEncoder.pool` (what is kept of the residual; frozen) or ``g_phi``
(how it becomes a token; trained).
"""

import torch
from torch import Tensor, nn

from vtok.feature_scale import FeatureScale
from vtok.spatial_encoder import pool_grid


class MotionEncoder(nn.Module):
    """``g_phi``, a two-layer GELU MLP on the pooled residual.

    A global mean (``residual_grid = 1``, the paper's) cancels opposed motions; n > 1 keeps n x n cells in one token.

    Args:
        hidden_dim: width between the two layers; ``token_dim`` if omitted.
    """

    def __init__(self, residual_grid: int, feature_dim: int, token_dim: int, hidden_dim: int | None = None):
        super().__init__()
        self.residual_grid = residual_grid
        self.residual_dim = feature_dim * residual_grid**2
        hidden_dim = hidden_dim or token_dim
        self.g_phi = nn.Sequential(
            nn.Linear(self.residual_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, token_dim)
        )

    def pool(self, features: Tensor, key_features: Tensor) -> Tensor:
        """Two (n, h, w, d_v) -> (n, residual_dim): frozen, what the visual head learns to predict."""
        return pool_grid(features - key_features, self.residual_grid).flatten(1)

    def forward(self, residual: Tensor, scale: FeatureScale) -> Tensor:
        """(..., residual_dim) -> (..., token_dim); ``scale`` is of the residuals."""
        return self.g_phi(scale.standardise(residual).to(residual.dtype))


class MeanMotionEncoder(MotionEncoder):
    """``g_phi`` for a language model that reads the features themselves: token = mean F(x_key) + g(pooled residual).

    g(r) is the residual's mean plus an MLP of r, whose last layer is zero at start. Together with the key frame's mean
    the first is the mean of F(x_t): to the last bit the token of ``training_free``, which the model can read already.
    """

    def __init__(self, residual_grid: int, feature_dim: int, token_dim: int, hidden_dim: int | None = None):
        super().__init__(residual_grid, feature_dim, token_dim, hidden_dim)
        self.residual_dim += feature_dim
        for parameter in self.g_phi[-1].parameters():
            nn.init.zeros_(parameter)

    def pool(self, features: Tensor, key_features: Tensor) -> Tensor:
        """Two (n, h, w, d_v) -> (n, residual_dim): the later one's mean, then the pooled residual."""
        return torch.cat([pool_grid(features, 1).flatten(1), super().pool(features, key_features)], dim=-1)

    def forward(self, pooled: Tensor, scale: FeatureScale) -> Tensor:
        """(..., residual_dim) -> (..., token_dim); ``scale`` is of both."""
        width = self.g_phi[-1].out_features
        residual = scale.standardise(pooled)[..., width:]
        return pooled[..., :width] + self.g_phi(residual.to(pooled.dtype))
