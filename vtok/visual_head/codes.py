"""``codes``: eq. 5 to the letter: cross-entropy over quantised tokens of one vocabulary.

The codebook is fixed. Each dimension of a feature is quantised by itself, as in finite scalar quantisation (Mentzer et
al., 2024), whose learned projection a frozen feature does not need. The cells of a standardised feature are equally
likely under a normal distribution, so the whole vocabulary is used. Latents of a VidTok have the cells of its own FSQ.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.config import VisualHeadConfig
from vtok.devices import to_device
from vtok.sampling import PLAIN, Sampling
from vtok.vidtok.fsq import FSQ
from vtok.visual_head.base import VisualHead, guided


class Cells(Protocol):
    """The quantiser of one dimension."""

    levels: int

    def quantise(self, features: Tensor) -> Tensor:
        """Maps values to the codes 0 ... levels - 1 of their cells."""
        ...

    def dequantise(self, codes: Tensor) -> Tensor:
        """Maps codes to one value in each cell, fp32."""
        ...


class NormalCells:
    """Cells that are equally likely under the standard normal distribution."""

    def __init__(self, levels: int):
        self.levels = levels

    def quantise(self, features: Tensor) -> Tensor:
        return quantise(features, self.levels)

    def dequantise(self, codes: Tensor) -> Tensor:
        return dequantise(codes, self.levels)


class FSQCells:
    """The cells of a VidTok's FSQ. The features are its latents before rounding."""

    def __init__(self, levels: int):
        self.levels, self.fsq = levels, FSQ((levels,))

    def quantise(self, features: Tensor) -> Tensor:
        return self.fsq.codes_to_indices(self.fsq.quantise(features.float().unsqueeze(-1))).long()

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.fsq.unbound(self.fsq.indices_to_codes(codes)).squeeze(-1)


class CodesHead(VisualHead):
    """A distribution over the codes of each dimension. Dimensions are independent given the hidden state.

    Teacher-forced inputs are not quantised; a sampled input is the value of a code. With 32 levels the two differ by a
    standard deviation of 0.097 on normally distributed features (test_visual_head.py).
    """

    has_density = True

    def __init__(self, hidden_dim: int, dim: int, cells: Cells):
        super().__init__()
        self.dim, self.cells = dim, cells
        self.linear = nn.Linear(hidden_dim, dim * cells.levels)

    @classmethod
    def build(cls, config: VisualHeadConfig, hidden_dim: int, dim: int, fsq_levels: int | None) -> "CodesHead":
        return cls(hidden_dim, dim, FSQCells(fsq_levels) if fsq_levels else NormalCells(config.levels))

    def logits(self, hidden: Tensor) -> Tensor:
        """Computes the logits (n, dim, levels) in fp32."""
        return self.linear(hidden).float().unflatten(-1, (self.dim, self.cells.levels))

    def loss(self, hidden: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        # Flat, since some versions of torch have no deterministic cross-entropy over more dimensions.
        logits, codes = self.logits(hidden).flatten(0, 1), self.cells.quantise(target)
        return F.cross_entropy(logits, codes.flatten(), reduction="none").view_as(codes).mean(-1)

    def sample(
        self,
        hidden: Tensor,
        sampling: Sampling = PLAIN,
        generator: torch.Generator | None = None,
        without_text: Tensor | None = None,
    ) -> Tensor:
        """Samples a code for each dimension. Guidance leads the logits, then the temperature divides them."""
        logits = guided(self.logits(hidden), None if without_text is None else self.logits(without_text), sampling)
        if sampling.temperature == 0:
            codes = logits.argmax(-1)
        else:
            likely = (logits / sampling.temperature).softmax(-1).flatten(0, 1).cpu()
            drawn = torch.multinomial(likely, 1, generator=generator).view(logits.shape[:2])
            codes = to_device(drawn, logits.device)
        return self.cells.dequantise(codes)


def quantise(features: Tensor, levels: int) -> Tensor:
    """Maps standardised features (...) to codes 0 ... levels - 1."""
    edges = torch.special.ndtri(torch.arange(1, levels, dtype=torch.float64) / levels)
    return torch.bucketize(features.float(), to_device(edges.float(), features.device))


def dequantise(codes: Tensor, levels: int) -> Tensor:
    """Maps codes to the mean of the standard normal distribution within their cells, fp32."""
    edges = torch.special.ndtri(torch.arange(levels + 1, dtype=torch.float64) / levels)
    density = torch.exp(-0.5 * edges.square()) / math.sqrt(2 * math.pi)
    return to_device((levels * (density[:-1] - density[1:])).float(), codes.device)[codes]
