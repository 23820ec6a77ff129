"""Motion encoder: turns the residual of a later frame to the key frame into one token (paper, eq. 14).

    m_t = g_phi(pool(F(x_t) - F(x_key)))

With ``residual_to: previous`` the residual is that to the step before instead.

The pooled residual is standardised before ``g_phi``. Most of a frame does not move, so the raw residual is small
against the features, and the model would learn from it late.

A motion encoder has a frozen part, ``pool`` (what is kept of the residual), and a trained one, ``forward`` (how it
becomes a token). To try another one, change :class:`MotionEncoder`, or write a class beside it.
"""

import torch
from torch import Tensor, nn

from vtok.config import require
from vtok.feature_scale import FeatureScale
from vtok.spatial_encoder import pool_grid


class StepEncoder(nn.Module):
    """Makes the token of one step in time.

    Attributes:
        residual_dim: Width of the pooled features.
    """

    residual_dim: int

    def pool(self, features: Tensor, key_features: Tensor) -> Tensor:
        """Pools the features of n frames and of those they refer to, (n, h, w, d_v) each, to (n, residual_dim).

        The result is frozen; the visual head learns to predict it.
        """
        raise NotImplementedError

    def forward(self, pooled: Tensor, scale: FeatureScale) -> Tensor:
        """Maps pooled features (..., residual_dim) to tokens (..., token_dim). ``scale`` is that of these features."""
        raise NotImplementedError


class ResidualEncoder(StepEncoder):
    """Keeps n x n cells of the residual.

    Args:
        residual_grid: n.
        feature_dim: d_v.
    """

    def __init__(self, residual_grid: int, feature_dim: int):
        super().__init__()
        self.residual_grid, self.feature_dim = residual_grid, feature_dim
        self.residual_dim = feature_dim * residual_grid**2

    def pool(self, features: Tensor, key_features: Tensor) -> Tensor:
        return pool_grid(features - key_features, self.residual_grid).flatten(1)


class MotionEncoder(ResidualEncoder):
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
        super().__init__(residual_grid, feature_dim)
        hidden_dim = hidden_dim or token_dim
        self.g_phi = nn.Sequential(
            nn.Linear(self.residual_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, token_dim)
        )

    def forward(self, pooled: Tensor, scale: FeatureScale) -> Tensor:
        return self.g_phi(scale.standardise(pooled).to(pooled.dtype))


class QueryMotionEncoder(ResidualEncoder):
    """``g_phi`` with a learned query that pools the n x n cells of the residual by attention.

    A cell's key and value are linear maps of its standardised residual plus a learned vector of its place. Every head
    has its own part of the one query. An MLP maps what the heads found to the token. So a head can look for the cells
    in which something moved, wherever they are; :class:`MotionEncoder` has separate weights for each cell.

    Args:
        residual_grid: n.
        feature_dim: d_v.
        token_dim: Width of a token.
        hidden_dim: Width of the attention, all heads together. ``token_dim`` if omitted.

    Raises:
        ConfigError: ``HEADS`` does not divide the width of the attention.
    """

    HEADS = 8

    def __init__(self, residual_grid: int, feature_dim: int, token_dim: int, hidden_dim: int | None = None):
        super().__init__(residual_grid, feature_dim)
        width = hidden_dim or token_dim
        require(
            width % self.HEADS == 0,
            f"tokeniser.residual_pooling query has {self.HEADS} heads, which do not divide the width {width}: set "
            f"tokeniser.motion_hidden_dim to a multiple of {self.HEADS}",
        )
        self.place = nn.Parameter(torch.randn(residual_grid**2, feature_dim))
        self.query = nn.Parameter(torch.randn(self.HEADS, width // self.HEADS))
        self.keys, self.values = nn.Linear(feature_dim, width), nn.Linear(feature_dim, width)
        self.g_phi = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, token_dim))

    def forward(self, pooled: Tensor, scale: FeatureScale) -> Tensor:
        cells = scale.standardise(pooled).to(pooled.dtype).unflatten(-1, (-1, self.feature_dim)) + self.place
        keys, values = (part(cells).unflatten(-1, self.query.shape) for part in (self.keys, self.values))
        match = (keys * self.query).sum(-1, keepdim=True) / self.query.shape[1] ** 0.5  # (..., cells, heads, 1)
        return self.g_phi((match.softmax(-3) * values).sum(-3).flatten(-2))


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
