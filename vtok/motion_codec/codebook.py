"""A learned codebook of unit vectors. A latent's code is the nearest of them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARPNESS = 20.0  # of the shares in usage_gap, per unit of the cosine


class Codebook(nn.Module):
    """K vectors of D dimensions, of length 1 in use.

    Args:
        size: K.
        dim: D.
    """

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, dim) / math.sqrt(dim))

    def forward(self, latents: Tensor) -> Tensor:
        """Maps latents (..., D) to the vectors of their codes, fp32."""
        vectors = F.normalize(self.weight.float(), dim=-1)
        return vectors[nearest(latents, vectors)]


def nearest(latents: Tensor, vectors: Tensor) -> Tensor:
    """Returns the code, 0 ... K - 1, of each latent (..., D): the vector (K, D) at the smallest angle to it."""
    return (latents.float() @ vectors.T).argmax(-1)


def usage_gap(latents: Tensor, vectors: Tensor) -> Tensor:
    """Returns mean(H(p)) - H(mean p), a scalar: small if each latent picks its code surely and all codes are used.

    p(c) of a latent is the softmax of its cosines with all codes. Without this term most codes are never picked: a
    code that no latent picks gets no other gradient.

    Args:
        latents: (N, D), of length 1.
        vectors: (K, D), of length 1.
    """
    log_p = (SHARPNESS * latents @ vectors.T).log_softmax(-1)
    average = log_p.exp().mean(0)
    return -(log_p.exp() * log_p).sum(-1).mean() + (average * average.clamp_min(1e-9).log()).sum()
