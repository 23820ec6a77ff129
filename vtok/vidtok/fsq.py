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
        reach, offset, half = self.bounds(z.device)
        bounded = torch.tanh(z + torch.atanh(offset / reach)) * reach - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / half

    def unbound(self, codes: Tensor) -> Tensor:
        """Latents of which these codes are what :meth:`quantise` gives: those in the middle of their cells."""
        reach, offset, half = self.bounds(codes.device)
        return torch.atanh((codes * half + offset) / reach) - torch.atanh(offset / reach)

    def bounds(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """For each channel: how far tanh reaches, by how much it is shifted, L // 2."""
        levels = torch.tensor(self.levels, device=device)
        return (levels - 1) * (1 + BOUND_SLACK) / 2, torch.where(levels % 2 == 0, 0.5, 0.0), levels // 2

    def codes_to_indices(self, codes: Tensor) -> Tensor:
        """(..., D) to (...) int32."""
        half = self.bounds(codes.device)[2]
        return ((codes.float() * half + half).round() * self.basis(codes.device)).sum(-1).to(torch.int32)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """(...) integers to (..., D) fp32."""
        half = self.bounds(indices.device)[2]
        levels = torch.tensor(self.levels, device=indices.device)
        return (indices.unsqueeze(-1) // self.basis(indices.device) % levels - half) / half

    def basis(self, device: torch.device) -> Tensor:
        """What a step in each channel adds to the index."""
        return torch.cumprod(torch.tensor([1, *self.levels[:-1]], device=device), 0)

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
