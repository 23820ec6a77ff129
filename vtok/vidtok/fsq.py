"""The discrete regulariser: finite scalar quantisation (Mentzer et al., 2024, arXiv 2309.15505)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.vidtok.codebook_entropy import entropy_gap

BOUND_SLACK = 1e-3
ENTROPY_WEIGHTS, ANNEALING_UPDATES = (0.3, 0.1), 2000
COMMITMENT_WEIGHT = 0.25


class FSQ(nn.Module):
    """Rounds each of the D channels to one of its levels; the codebook is the product of the channels' own.

    Attributes:
        updates: optimiser updates so far, which the trainer keeps; the weight of the entropy falls with them.
    """

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.levels, self.updates = levels, 0
        steps = torch.tensor(levels)
        # Computed, never stored: a published checkpoint holds nothing of the quantiser.
        self.register_buffer("basis", torch.cumprod(torch.tensor([1, *levels[:-1]]), 0), persistent=False)
        self.register_buffer("steps", steps, persistent=False)

    @property
    def codebook_size(self) -> int:
        return int(torch.Size(self.levels).numel())

    def forward(self, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, T, H, W, D) to codes of that shape, their ``indices`` (B, T, H, W) int32, and ``aux_loss``.

        The loss is zero at evaluation. Gradients pass through the rounding.
        """
        unbounded = z.float()
        codes = self.quantise(unbounded)
        loss = self.auxiliary_loss(unbounded, codes) if self.training else unbounded.new_zeros(())
        return codes.to(z.dtype), {"indices": self.codes_to_indices(codes), "aux_loss": loss}

    def quantise(self, z: Tensor) -> Tensor:
        """fp32 codes in [-1, 1), multiples of 1 / (L // 2)."""
        half = (self.steps - 1) * (1 + BOUND_SLACK) / 2
        offset = torch.where(self.steps % 2 == 0, 0.5, 0.0)
        bounded = torch.tanh(z + torch.atanh(offset / half)) * half - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / (self.steps // 2)

    def codes_to_indices(self, codes: Tensor) -> Tensor:
        """(..., D) to (...) int32."""
        half = self.steps // 2
        return ((codes.float() * half + half).round() * self.basis).sum(-1).to(torch.int32)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """(...) integers to (..., D) fp32."""
        half = self.steps // 2
        return (indices.unsqueeze(-1) // self.basis % self.steps - half) / half

    def auxiliary_loss(self, z: Tensor, codes: Tensor) -> Tensor:
        """Sure of each code, and using all of them: the entropy's gap, and the distance to the codes."""
        values = [(torch.arange(level, device=z.device) - level // 2) / (level // 2) for level in self.levels]
        commitment = F.mse_loss(z, codes.detach())
        with torch.autocast(z.device.type, enabled=False):
            gap = entropy_gap(z.flatten(0, -2), values)
        return self.entropy_weight * gap + COMMITMENT_WEIGHT * commitment

    @property
    def entropy_weight(self) -> float:
        start, end = ENTROPY_WEIGHTS
        return start + (end - start) * min(self.updates / ANNEALING_UPDATES, 1)
