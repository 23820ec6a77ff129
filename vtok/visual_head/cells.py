"""Quantisers of a feature, for the visual head ``codes``."""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.devices import to_device
from vtok.vidtok.fsq import FSQ


class Cells(Protocol):
    """Turns a feature into codes of one vocabulary, and back.

    Attributes:
        levels: Size of the vocabulary.
        whole: Whether a feature has one code. Else each of its dimensions has one.
    """

    levels: int
    whole: bool

    def quantise(self, features: Tensor) -> Tensor:
        """Maps features (n, dim) to their codes (n, dim), or (n, 1) if they have one code."""
        ...

    def dequantise(self, codes: Tensor) -> Tensor:
        """Maps codes to one feature (n, dim) in each cell, fp32."""
        ...


class NormalCells:
    """Cells of each dimension that are equally likely under the standard normal distribution."""

    whole = False

    def __init__(self, levels: int):
        self.levels = levels

    def quantise(self, features: Tensor) -> Tensor:
        return quantise(features, self.levels)

    def dequantise(self, codes: Tensor) -> Tensor:
        return dequantise(codes, self.levels)


class FSQCells:
    """The cells of a VidTok's FSQ. The features are its latents before rounding."""

    whole = False

    def __init__(self, levels: int):
        self.levels, self.fsq = levels, FSQ((levels,))

    def quantise(self, features: Tensor) -> Tensor:
        return self.fsq.codes_to_indices(self.fsq.quantise(features.float().unsqueeze(-1))).long()

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.fsq.unbound(self.fsq.indices_to_codes(codes)).squeeze(-1)


class CodebookCells(nn.Module):
    """The codes of a learned codebook. The features are the vectors of such codes.

    The table is a buffer, which ZeRO-3 does not shard.

    Args:
        vectors: (K, D). They are used with length 1.
    """

    vectors: Tensor
    whole = True

    def __init__(self, vectors: Tensor):
        super().__init__()
        self.levels = len(vectors)
        self.register_buffer("vectors", F.normalize(vectors.float(), dim=-1), persistent=False)

    def quantise(self, features: Tensor) -> Tensor:
        return (features.float() @ self.vectors.T).argmax(-1, keepdim=True)

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.vectors[codes.squeeze(-1)]


def quantise(features: Tensor, levels: int) -> Tensor:
    """Maps standardised features (...) to codes 0 ... levels - 1."""
    edges = torch.special.ndtri(torch.arange(1, levels, dtype=torch.float64) / levels)
    return torch.bucketize(features.float(), to_device(edges.float(), features.device))


def dequantise(codes: Tensor, levels: int) -> Tensor:
    """Maps codes to the mean of the standard normal distribution within their cells, fp32."""
    edges = torch.special.ndtri(torch.arange(levels + 1, dtype=torch.float64) / levels)
    density = torch.exp(-0.5 * edges.square()) / math.sqrt(2 * math.pi)
    return to_device((levels * (density[:-1] - density[1:])).float(), codes.device)[codes]
