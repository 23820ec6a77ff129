"""``codes``: eq. 5 taken literally, a cross-entropy over quantised tokens of one vocabulary.

The codebook is fixed and needs no training: every dimension of a feature is quantised on its own (as in finite scalar
quantisation, Mentzer et al., 2024, whose learned projection the frozen feature makes unnecessary). The cells of a
standardised feature are equally likely under a normal distribution, so that all of the vocabulary is used. Those of a
VidTok's latents are its own FSQ's.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.devices import to_device
from vtok.vidtok.fsq import FSQ


class Cells(Protocol):
    """How one dimension is quantised: values to codes 0 ... levels - 1, and codes to a value in their cells, fp32."""

    levels: int

    def quantise(self, features: Tensor) -> Tensor: ...

    def dequantise(self, codes: Tensor) -> Tensor: ...


class NormalCells:
    """Equally likely under the standard normal distribution."""

    def __init__(self, levels: int):
        self.levels = levels

    def quantise(self, features: Tensor) -> Tensor:
        return quantise(features, self.levels)

    def dequantise(self, codes: Tensor) -> Tensor:
        return dequantise(codes, self.levels)


class FSQCells:
    """Those of a VidTok's FSQ; the features are its latents as they are before it rounds them."""

    def __init__(self, levels: int):
        self.levels, self.fsq = levels, FSQ((levels,))

    def quantise(self, features: Tensor) -> Tensor:
        return self.fsq.codes_to_indices(self.fsq.quantise(features.float().unsqueeze(-1))).long()

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.fsq.unbound(self.fsq.indices_to_codes(codes)).squeeze(-1)


class CodesHead(nn.Module):
    """A distribution over the codes of each dimension, independent given the hidden state.

    Teacher-forced inputs stay unquantised; a sampled input is a code's feature. With 32 levels the two differ by a
    standard deviation of 0.097 on normally distributed features (test_visual_head.py).
    """

    noise_dim = 0

    def __init__(self, hidden_dim: int, dim: int, cells: Cells):
        super().__init__()
        self.dim, self.cells = dim, cells
        self.linear = nn.Linear(hidden_dim, dim * cells.levels)

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, dim, levels) in fp32."""
        return self.linear(hidden).float().unflatten(-1, (self.dim, self.cells.levels))

    def loss(self, hidden: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        # As one long list: where results must repeat, some versions of torch refuse the loss over more dimensions.
        logits, codes = self.logits(hidden).flatten(0, 1), self.cells.quantise(target)
        return F.cross_entropy(logits, codes.flatten(), reduction="none").view_as(codes).mean(-1)

    def sample(self, hidden: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        """Draws a code for each dimension; ``temperature`` divides the logits, 0 gives the likeliest code."""
        logits = self.logits(hidden)
        if temperature == 0:
            codes = logits.argmax(-1)
        else:
            likely = (logits / temperature).softmax(-1).flatten(0, 1).cpu()
            drawn = torch.multinomial(likely, 1, generator=generator).view(logits.shape[:2])
            codes = to_device(drawn, logits.device)
        return self.cells.dequantise(codes)


def quantise(features: Tensor, levels: int) -> Tensor:
    """Standardised features (...) to codes 0 ... levels - 1."""
    edges = torch.special.ndtri(torch.arange(1, levels, dtype=torch.float64) / levels)
    return torch.bucketize(features.float(), to_device(edges.float(), features.device))


def dequantise(codes: Tensor, levels: int) -> Tensor:
    """Codes to the mean of a standard normal inside their cells, fp32."""
    edges = torch.special.ndtri(torch.arange(levels + 1, dtype=torch.float64) / levels)
    density = torch.exp(-0.5 * edges.square()) / math.sqrt(2 * math.pi)
    return to_device((levels * (density[:-1] - density[1:])).float(), codes.device)[codes]
