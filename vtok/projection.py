"""phi_vis and P: tokens into the language model's space (paper, eq. 3).

    embedding_j = phi_vis(V_j) + P_modality + P_position

P starts at zero, so that the pretrained model is unchanged at step 0.
"""

import torch
from torch import Tensor, nn

from vtok.config import ConfigError

SPATIAL, MOTION = 0, 1


class VisualPositions(nn.Module):
    """P: learned embeddings of a visual token's modality and of its place in the grid or in time."""

    def __init__(self, num_spatial_tokens: int, max_motion_tokens: int, dim: int):
        super().__init__()
        self.num_spatial_tokens = num_spatial_tokens
        self.max_motion_tokens = max_motion_tokens
        self.modality = nn.Embedding(2, dim)
        self.spatial = nn.Embedding(num_spatial_tokens, dim)
        self.temporal = nn.Embedding(max_motion_tokens, dim)
        for embedding in (self.modality, self.spatial, self.temporal):
            nn.init.zeros_(embedding.weight)

    def forward(self, start: int, stop: int, device: torch.device) -> Tensor:
        """P of the visual tokens ``start`` ... ``stop - 1``: (stop - start, d).

        Raises:
            ConfigError: more motion tokens than the table has rows.
        """
        split = self.num_spatial_tokens
        if stop - split > self.max_motion_tokens:
            raise ConfigError(
                f"{stop - split} motion tokens, but the model has positions for {self.max_motion_tokens}: "
                "use a shorter video or raise mllm.max_motion_tokens"
            )
        cells = torch.arange(start, max(min(stop, split), start), device=device)
        times = torch.arange(max(start, split), max(stop, split), device=device) - split
        spatial = self.spatial(cells) + self.modality(torch.full_like(cells, SPATIAL))
        temporal = self.temporal(times) + self.modality(torch.full_like(times, MOTION))
        return torch.cat([spatial, temporal])


class VisualProjection(nn.Module):
    """phi_vis followed by P.

    Args:
        projector: phi_vis, (..., token_dim) -> (..., d): LLaVA's own projector where its input width fits.
        positions: P.
    """

    def __init__(self, projector: nn.Module, positions: VisualPositions):
        super().__init__()
        self.projector = projector
        self.positions = positions

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """(B, L, token_dim) -> (B, L, d), for the visual tokens ``start`` ... ``start + L - 1`` of a video."""
        return self.projector(tokens) + self.positions(start, start + tokens.shape[1], tokens.device)


def mlp_projector(token_dim: int, dim: int) -> nn.Sequential:
    """A fresh phi_vis in the shape of LLaVA's: two linear layers with a GELU between."""
    return nn.Sequential(nn.Linear(token_dim, dim), nn.GELU(), nn.Linear(dim, dim))
