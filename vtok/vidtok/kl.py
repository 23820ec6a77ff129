"""The continuous regulariser: a diagonal Gaussian over latents, pulled towards the standard one."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

LOG_VARIANCE_RANGE = (-30.0, 20.0)


class Gaussian(NamedTuple):
    """Mean and log variance of the latents, of one shape."""

    mean: Tensor
    log_variance: Tensor

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.log_variance)

    def sample(self) -> Tensor:
        return self.mean + self.std * torch.randn_like(self.std)

    def divergence(self) -> Tensor:
        """KL from the standard normal distribution, summed over a clip and averaged over the clips."""
        terms = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * terms.float().sum() / len(self.mean)


class KL(nn.Module):
    """Moments (..., 2 C) to latents (..., C): drawn in training, the mean otherwise.

    Attributes:
        sample: draw at evaluation too.
    """

    sample = False

    def gaussian(self, moments: Tensor) -> Gaussian:
        mean, log_variance = moments.chunk(2, dim=-1)
        return Gaussian(mean, log_variance.clamp(*LOG_VARIANCE_RANGE))

    def forward(self, moments: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Latents, and ``kl_loss``, a scalar."""
        gaussian = self.gaussian(moments)
        z = gaussian.sample() if self.training or self.sample else gaussian.mean
        return z, {"kl_loss": gaussian.divergence()}
