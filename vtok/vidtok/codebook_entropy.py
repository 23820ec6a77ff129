"""How sure each latent is of its code, against how evenly all codes are used.

A latent z gives code c of the codebook the probability softmax(200 z.c). The gap is mean(H(p)) - H(mean p), where H
takes the logarithm of nothing below 1e-5. Over 262,144 codes the probabilities of a clip's latents take gigabytes. But
the codebook is a product of its D dimensions', and so are the probabilities:

- H(p) is the sum over dimensions of theirs, but for what the floor of the logarithm takes away: that is summed over
  those codes that are likely at all, few of the product;
- mean p is a product of two matrices, of half of the dimensions each.
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce
from torch.utils.checkpoint import checkpoint

SHARPNESS = 200.0  # the squared distance's factor of 2, times an inverse temperature of 100
FLOOR = 1e-5
NEGLIGIBLE = 1e-10  # of a half's probability: all of them together change an entropy by less than 1e-6
LATENTS_AT_ONCE = 256


def entropy_gap(z: Tensor, values: Sequence[Tensor]) -> Tensor:
    """mean(H(p)) - H(mean p) of latents (N, D); the second mean is over all ranks, with gradients to each of them.

    Args:
        values: of each dimension, its codes' coordinates.
    """
    own = [(SHARPNESS * channel.unsqueeze(-1) * value).log_softmax(-1) for channel, value in zip(z.unbind(-1), values)]
    middle = len(own) // 2
    first, second = product(z, own[:middle]), product(z, own[middle:])
    entropy = -sum((log_p.exp() * log_p).sum(-1) for log_p in own).mean() - floored(first, second) / len(z)
    average = over_ranks(first.exp().T @ second.exp() / len(z))
    return entropy + (average * average.clamp_min(FLOOR).log()).sum()


def product(z: Tensor, log_p: Sequence[Tensor]) -> Tensor:
    """Log probabilities (N, L1 L2 ...) of all combinations of some dimensions' codes, from theirs (N, L)."""
    joint = z.new_zeros(len(z), 1)
    for own in log_p:
        joint = (joint.unsqueeze(2) + own.unsqueeze(1)).flatten(1)
    return joint


def floored(first: Tensor, second: Tensor) -> Tensor:
    """What the logarithm's floor takes from the entropies of (N, a) x (N, b) probabilities, given as logs."""
    likely = [(half > math.log(NEGLIGIBLE)).sum(1) for half in (first, second)]
    order = torch.argsort(likely[0] * likely[1])  # latents with as many likely codes go together
    total = first.new_zeros(())
    for rows in order.split(LATENTS_AT_ONCE):
        counts = [int(count[rows].max()) for count in likely]
        total = total + checkpoint(floored_rows, first[rows], second[rows], *counts, use_reentrant=False)
    return total


def floored_rows(first: Tensor, second: Tensor, count_first: int, count_second: int) -> Tensor:
    log_p = product(first, [first.topk(count_first).values, second.topk(count_second).values])
    lost = log_p.exp() * (math.log(FLOOR) - log_p)
    return torch.where(lost > 0, lost, 0).sum()


def over_ranks(x: Tensor) -> Tensor:
    """The mean over ranks."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    return all_reduce(x) / dist.get_world_size()
