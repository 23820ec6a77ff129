"""Flow matching, as pure functions (paper, eq. 11; Esser et al., 2024, for the sampling of sigma).

x_sigma = (1 - sigma) z + sigma eps,     velocity = eps - z
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def shifted_logit_normal(normal: Tensor, shift: float) -> Tensor:
    """Noise levels in (0, 1) from standard normal draws; ``shift`` > 1 moves them towards noise.

    With the scheduler's own shift, training meets the noise levels in the sampler's proportions: for 7 the median is
    0.875 in both, where without it (shift 1) it would be 0.5.
    """
    sigma = torch.sigmoid(normal)
    return shift * sigma / (1 + (shift - 1) * sigma)


def normal_of(sigma: float, shift: float) -> float:
    """The standard normal draw that :func:`shifted_logit_normal` turns into ``sigma``, in (0, 1)."""
    return math.log(sigma / (shift * (1 - sigma)))


def truncated_normal(normal: Tensor, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """Standard normal draws to draws of the same distribution between ``low`` and ``high``, one to one and in order."""
    ends = torch.tensor([low, high], dtype=torch.float64)
    first, last = torch.special.ndtr(ends)
    inside = torch.special.ndtri(first + torch.special.ndtr(normal.double()) * (last - first))
    return inside.clamp(*ends).to(normal.dtype)


def interpolate(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """``x_sigma``; ``sigma`` broadcasts over ``clean`` and ``noise``."""
    return (1 - sigma) * clean + sigma * noise


def squared_error(velocity: Tensor, clean: Tensor, noise: Tensor, sigma: Tensor, objective: str) -> Tensor:
    """Elementwise squared error of a predicted velocity.

    ``objective`` is ``velocity``, or ``noise`` for eq. 11's form: with ``eps_hat = x_sigma + (1 - sigma) velocity`` the
    error of the noise is ``(1 - sigma)`` times that of the velocity. It is the same objective with a weight of
    ``(1 - sigma)^2``, whose mean is 0.043 at HunyuanVideo's shift of 7: the high noise levels, where motion and layout
    are decided, all but drop out, and ``loss.dec`` wants to be some 23 times as large.
    """
    error = velocity - (noise - clean)
    if objective == "noise":
        error = (1 - sigma) * error
    return error.square()


def integrate(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Follow ``velocity(x, sigma)`` from ``noise`` at sigma = 1 to the clean end, in equal steps of Heun's method."""
    x, levels = noise, torch.linspace(1, 0, steps + 1)
    for sigma, following in zip(levels, levels[1:]):
        step, slope = following - sigma, velocity(x, sigma)
        x = x + step * (slope + velocity(x + step * slope, following)) / 2
    return x
