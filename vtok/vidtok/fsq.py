"""The discrete regulariser: finite scalar quantisation (Mentzer et al., 2024, arXiv 2309.15505)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.vidtok.codebook_entropy import entropy_gap

BOUND_SLACK = 1e-3  # tanh reaches a little beyond the outermost codes
ENTROPY_WEIGHTS, ANNEALING_UPDATES = (0.3, 0.1), 2000  # the weight falls linearly from the first to the second
COMMITMENT_WEIGHT = 0.25


class FSQ(nn.Module):
    """Rounds each of D channels to one of its levels. The codebook is the product of the channels' levels.

    Args:
        levels: Levels of each channel, L.

    Attributes:
        updates: Optimiser updates so far; the trainer sets it. The weight of the entropy loss falls with it.
    """

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.levels, self.updates = levels, 0

    @property
    def codebook_size(self) -> int:
        """Number of codes: the product of the levels."""
        return int(torch.Size(self.levels).numel())

    def forward(self, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Quantises latents. Gradients pass straight through the rounding.

        Args:
            z: Latents (B, T, H, W, D).

        Returns:
            The codes, with the shape and dtype of ``z``, and a log: ``indices`` (B, T, H, W) int32 and ``aux_loss``, a
            scalar that is zero at evaluation.
        """
        unbounded = z.float()
        codes = self.quantise(unbounded)
        loss = self.auxiliary_loss(unbounded, codes) if self.training else unbounded.new_zeros(())
        return codes.to(z.dtype), {"indices": self.codes_to_indices(codes), "aux_loss": loss}

    def quantise(self, z: Tensor) -> Tensor:
        """Maps fp32 latents (..., D) to fp32 codes in [-1, 1]: multiples of 1 / (L // 2)."""
        reach, offset, half = self.bounds(z.device)
        bounded = torch.tanh(z + torch.atanh(offset / reach)) * reach - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / half

    def unbound(self, codes: Tensor) -> Tensor:
        """Inverts :meth:`quantise`: returns the latents in the middle of the codes' cells, (..., D)."""
        reach, offset, half = self.bounds(codes.device)
        return torch.atanh((codes * half + offset) / reach) - torch.atanh(offset / reach)

    def bounds(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Returns, for each channel, (D,) each: the amplitude of tanh, its shift for even L, and L // 2."""
        levels = torch.tensor(self.levels, device=device)
        return (levels - 1) * (1 + BOUND_SLACK) / 2, torch.where(levels % 2 == 0, 0.5, 0.0), levels // 2

    def codes_to_indices(self, codes: Tensor) -> Tensor:
        """Maps codes (..., D) to indices (...), int32."""
        half = self.bounds(codes.device)[2]
        return ((codes.float() * half + half).round() * self.basis(codes.device)).sum(-1).to(torch.int32)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """Maps integer indices (...) to codes (..., D), fp32."""
        half = self.bounds(indices.device)[2]
        levels = torch.tensor(self.levels, device=indices.device)
        return (indices.unsqueeze(-1) // self.basis(indices.device) % levels - half) / half

    def basis(self, device: torch.device) -> Tensor:
        """Returns the place values (D,) of the channels in an index."""
        return torch.cumprod(torch.tensor([1, *self.levels[:-1]], device=device), 0)

    def auxiliary_loss(self, z: Tensor, codes: Tensor) -> Tensor:
        """Returns the weighted sum of the entropy gap and the commitment loss, a scalar.

        The entropy gap (see :mod:`vtok.vidtok.codebook_entropy`) asks for sure latents and an evenly used codebook. The
        commitment loss is the mean squared distance of the latents to their codes.
        """
        values = [(torch.arange(level, device=z.device) - level // 2) / (level // 2) for level in self.levels]
        commitment = F.mse_loss(z, codes.detach())
        with torch.autocast(z.device.type, enabled=False):
            gap = entropy_gap(z.flatten(0, -2), values)
        return self.entropy_weight * gap + COMMITMENT_WEIGHT * commitment

    @property
    def entropy_weight(self) -> float:
        """Weight of the entropy gap after ``updates`` updates."""
        start, end = ENTROPY_WEIGHTS
        return start + (end - start) * min(self.updates / ANNEALING_UPDATES, 1)
