"""phi_vis and P: map tokens into the language model's space (paper, eq. 3).

    embedding_j = phi_vis(V_j) + P_modality + P_position

P starts at zero, so the pretrained model is unchanged at step 0.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vtok.config import ConfigError
from vtok.devices import indices_on_device
from vtok.tokeniser.base import Place

MODALITIES = {"spatial": 0, "motion": 1}


class VisualPositions(nn.Module):
    """P: learned embeddings of a visual token's modality, of its cell in the grid and of its step in time.

    Args:
        place: Returns the place of the token of an index (``Tokeniser.place``).
        num_cells: Different cells (``Tokeniser.num_cells``).
        max_motion_tokens: Steps in time.
        dim: d.
    """

    def __init__(self, place: Callable[[int], Place], num_cells: int, max_motion_tokens: int, dim: int):
        super().__init__()
        self.place = place
        self.modality = nn.Embedding(2, dim)
        self.spatial = nn.Embedding(num_cells, dim)
        self.temporal = nn.Embedding(max_motion_tokens, dim)
        for embedding in (self.modality, self.spatial, self.temporal):
            nn.init.zeros_(embedding.weight)

    def forward(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Returns P of the visual tokens ``start`` ... ``stop - 1``: (stop - start, d).

        Raises:
            ConfigError: There are more steps in time than the table has rows.
        """
        places = [self.place(index) for index in range(start, stop)]
        cell_of = {index: place.cell for index, place in enumerate(places) if place.cell is not None}
        time_of = {index: place.time for index, place in enumerate(places) if place.time is not None}
        steps = 1 + max(time_of.values(), default=-1)
        if steps > self.temporal.num_embeddings:
            raise ConfigError(
                f"{steps} steps in time, but the model has positions for {self.temporal.num_embeddings}: "
                "use a shorter video or raise mllm.max_motion_tokens"
            )
        kinds, cells, times, with_cell, with_time = indices_on_device(
            device,
            [MODALITIES[place.kind] for place in places],
            list(cell_of.values()),
            list(time_of.values()),
            list(cell_of),
            list(time_of),
        )
        table = self.modality(kinds).index_add(0, with_cell, self.spatial(cells))
        return table.index_add(0, with_time, self.temporal(times))


class VisualProjection(nn.Module):
    """phi_vis followed by P.

    Args:
        projector: phi_vis, (..., token_dim) to (..., d). It is LLaVA's own projector if its input width fits.
        positions: P.
    """

    def __init__(self, projector: nn.Module, positions: VisualPositions):
        super().__init__()
        self.projector = projector
        self.positions = positions

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Maps (B, L, token_dim), the visual tokens ``start`` ... ``start + L - 1`` of a video, to (B, L, d)."""
        return self.projector(tokens) + self.positions(start, start + tokens.shape[1], tokens.device)


def mlp_projector(token_dim: int, dim: int) -> nn.Sequential:
    """Builds a new phi_vis of LLaVA's shape: two linear layers with a GELU between."""
    return nn.Sequential(nn.Linear(token_dim, dim), nn.GELU(), nn.Linear(dim, dim))
