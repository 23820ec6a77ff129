"""The entropy part of FSQ's auxiliary loss: each latent should pick its code surely, and all codes should be used.

A latent z assigns code c of the codebook the probability p(c) = softmax(200 z.c). The loss is the entropy gap
mean(H(p)) - H(mean p). The published models clamp the probability inside H's logarithm to at least 1e-5, and so do we.

Over 262,144 codes the probabilities of one clip's latents would take gigabytes. The codebook is the product of D
one-dimensional codebooks, so p is the product of D small distributions. Both entropies follow without the full table:

- H(p) is the sum of the D entropies, minus what the clamp changes. The clamp only matters for codes with a
  non-negligible probability, and these are few.
- mean p is one matrix product. Each factor holds the probabilities of half of the dimensions.
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce
from torch.utils.checkpoint import checkpoint

SHARPNESS = 200.0  # the factor 2 of the squared distance, times an inverse temperature of 100
FLOOR = 1e-5  # the logarithm's argument is clamped to this
NEGLIGIBLE = 1e-10  # probabilities of a half below this change an entropy by less than 1e-6 altogether
LATENTS_AT_ONCE = 256


def entropy_gap(z: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Returns mean(H(p)) - H(mean p), a scalar.

    The mean inside the second entropy is over the latents of all ranks. Gradients reach every rank.

    Args:
        z: Latents (N, D), fp32.
        values: For each of the D dimensions, the coordinates of its codes, (L,).
    """
    own = [(SHARPNESS * channel.unsqueeze(-1) * value).log_softmax(-1) for channel, value in zip(z.unbind(-1), values)]
    middle = len(own) // 2
    first, second = product(z, own[:middle]), product(z, own[middle:])
    negative = sum(((log_p.exp() * log_p).sum(-1) for log_p in own), start=z.new_zeros(()))
    entropy = -negative.mean() - floored(first, second) / len(z)
    average = over_ranks(first.exp().T @ second.exp() / len(z))
    return entropy + (average * average.clamp_min(FLOOR).log()).sum()


def product(z: Tensor, log_p: Sequence[Tensor]) -> Tensor:
    """Returns the log probabilities (N, L1 L2 ...) of all combinations of the codes of some dimensions.

    Args:
        z: Latents (N, D); only their number, dtype and device are used.
        log_p: For each dimension, the log probabilities (N, L) of its codes.
    """
    joint = z.new_zeros(len(z), 1)
    for own in log_p:
        joint = (joint.unsqueeze(2) + own.unsqueeze(1)).flatten(1)
    return joint


def floored(first: Tensor, second: Tensor) -> Tensor:
    """Returns by how much the clamp lowers the sum of the N entropies, a scalar.

    Args:
        first: Log probabilities (N, a) of one half of the dimensions.
        second: Log probabilities (N, b) of the other half.
    """
    likely = [(half > math.log(NEGLIGIBLE)).sum(1) for half in (first, second)]
    order = torch.argsort(likely[0] * likely[1])  # batches latents with similar numbers of likely codes
    total = first.new_zeros(())
    for rows in order.split(LATENTS_AT_ONCE):
        counts = [int(count[rows].max()) for count in likely]
        total = total + checkpoint(floored_rows, first[rows], second[rows], *counts, use_reentrant=False)
    return total


def floored_rows(first: Tensor, second: Tensor, count_first: int, count_second: int) -> Tensor:
    """Does the work of :func:`floored` for the ``count_first`` x ``count_second`` likeliest codes of each latent."""
    log_p = product(first, [first.topk(count_first).values, second.topk(count_second).values])
    lost = log_p.exp() * (math.log(FLOOR) - log_p)
    return torch.where(lost > 0, lost, 0).sum()


def over_ranks(x: Tensor) -> Tensor:
    """Returns the mean of ``x`` over all ranks, with gradients to each of them."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    return all_reduce(x) / dist.get_world_size()
