"""Flow matching as pure functions (paper, eq. 11; sigma is drawn as by Esser et al., 2024).

x_sigma = (1 - sigma) z + sigma eps,     velocity = eps - z
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def shifted_logit_normal(normal: Tensor, shift: float) -> Tensor:
    """Turns standard normal draws into noise levels in (0, 1). ``shift`` > 1 moves them towards noise.

    With the scheduler's own shift, training draws noise levels in the sampler's proportions: at shift 7 the median is
    0.875 in both. At shift 1 it would be 0.5.
    """
    sigma = torch.sigmoid(normal)
    return shift * sigma / (1 + (shift - 1) * sigma)


def normal_of(sigma: float, shift: float) -> float:
    """Inverts :func:`shifted_logit_normal` for one ``sigma`` in (0, 1)."""
    return math.log(sigma / (shift * (1 - sigma)))


def truncated_normal(normal: Tensor, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """Maps standard normal draws, in order, to normal draws between ``low`` and ``high``."""
    ends = torch.tensor([low, high], dtype=torch.float64)
    first, last = torch.special.ndtr(ends)
    inside = torch.special.ndtri(first + torch.special.ndtr(normal.double()) * (last - first))
    return inside.clamp(*ends).to(normal.dtype)


def interpolate(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Returns ``x_sigma``. ``sigma`` broadcasts over ``clean`` and ``noise``."""
    return (1 - sigma) * clean + sigma * noise


def squared_error(velocity: Tensor, clean: Tensor, noise: Tensor, sigma: Tensor, objective: str) -> Tensor:
    """Returns the elementwise squared error of a predicted velocity.

    The objective ``noise`` is eq. 11's form: with ``eps_hat = x_sigma + (1 - sigma) velocity``, the error of the noise
    is ``(1 - sigma)`` times that of the velocity. So it weights ``velocity``'s squared error by ``(1 - sigma)^2``. At
    HunyuanVideo's shift of 7 the mean weight is 0.043: high noise levels, which decide motion and layout, hardly count,
    and ``loss.dec`` should be about 23 times as large.

    Args:
        velocity: The prediction.
        clean: z.
        noise: eps.
        sigma: Noise levels, which broadcast over the others.
        objective: ``velocity`` or ``noise``.
    """
    error = velocity - (noise - clean)
    if objective == "noise":
        error = (1 - sigma) * error
    return error.square()


def integrate(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Follows ``velocity(x, sigma)`` from ``noise`` at sigma = 1 to sigma = 0, in equal steps of Heun's method."""
    x, levels = noise, torch.linspace(1, 0, steps + 1)
    for sigma, following in zip(levels, levels[1:]):
        step, slope = following - sigma, velocity(x, sigma)
        x = x + step * (slope + velocity(x + step * slope, following)) / 2
    return x
