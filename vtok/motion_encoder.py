"""Motion encoder: turns the residual of a later frame to the key frame into one token (paper, eq. 14).

    m_t = g_phi(pool(F(x_t) - F(x_key)))

The pooled residual is standardised before ``g_phi``. Most of a frame does not move, so the raw residual is small
against the features, and the model would learn from it late.

To try another motion encoder, change :meth:`MotionEncoder.pool` (frozen: what is kept of the residual) or ``g_phi``
(trained: how it becomes a token).
"""

import torch
from torch import Tensor, nn

from vtok.feature_scale import FeatureScale
from vtok.spatial_encoder import pool_grid


class StepEncoder(nn.Module):
    """Makes the token of one step in time.

    Attributes:
        residual_dim: Width of the pooled features.
    """

    residual_dim: int

    def pool(self, features: Tensor, key_features: Tensor) -> Tensor:
        """Pools the features of n frames and of their key frames, (n, h, w, d_v) each, to (n, residual_dim).

        The result is frozen; the visual head learns to predict it.
        """
        raise NotImplementedError

    def forward(self, pooled: Tensor, scale: FeatureScale) -> Tensor:
        """Maps pooled features (..., residual_dim) to tokens (..., token_dim). ``scale`` is that of these features."""
        raise NotImplementedError


class MotionEncoder(StepEncoder):
    """``g_phi``, a two-layer GELU MLP on the pooled residual.

    The paper pools globally (``residual_grid = 1``), which cancels opposed motions. With n > 1, n x n cells of the
    residual go into the one token.

    Args:
        residual_grid: n.
        feature_dim: d_v.
        token_dim: Width of a token.
        hidden_dim: Width between the two layers. ``token_dim`` if omitted.
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
        return pool_grid(features - key_features, self.residual_grid).flatten(1)

    def forward(self, pooled: Tensor, scale: FeatureScale) -> Tensor:
        return self.g_phi(scale.standardise(pooled).to(pooled.dtype))


class MeanMotionEncoder(MotionEncoder):
    """``g_phi`` for a language model that reads the features as tokens: mean F(x_key) + g(pooled residual).

    g(r) is the mean of the residual plus an MLP of r, whose last layer is zero at start. Mean F(x_key) plus the
    residual's mean is the mean of F(x_t). So at start the token equals that of ``training_free`` to the last bit, and
    the model can read it without training.
    """

    def __init__(self, residual_grid: int, feature_dim: int, token_dim: int, hidden_dim: int | None = None):
        super().__init__(residual_grid, feature_dim, token_dim, hidden_dim)
        self.residual_dim += feature_dim
        self.token_dim = token_dim
        for parameter in self.g_phi[-1].parameters():
            nn.init.zeros_(parameter)

    def pool(self, features: Tensor, key_features: Tensor) -> Tensor:
        """Returns the mean of the later frame's features, then its pooled residual, as one (n, residual_dim)."""
        return torch.cat([pool_grid(features, 1).flatten(1), super().pool(features, key_features)], dim=-1)

    def forward(self, pooled: Tensor, scale: FeatureScale) -> Tensor:
        residual = scale.standardise(pooled)[..., self.token_dim :]
        return pooled[..., : self.token_dim] + self.g_phi(residual.to(pooled.dtype))
