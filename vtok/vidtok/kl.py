"""The continuous regulariser: a diagonal Gaussian over latents, pulled towards the standard normal distribution."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

LOG_VARIANCE_RANGE = (-30.0, 20.0)


class Gaussian(NamedTuple):
    """A diagonal Gaussian over the latents.

    Attributes:
        mean: Means, (B, ..., C).
        log_variance: Logarithms of the variances, of the same shape.
    """

    mean: Tensor
    log_variance: Tensor

    @property
    def std(self) -> Tensor:
        """Standard deviations, of the same shape."""
        return torch.exp(0.5 * self.log_variance)

    def sample(self) -> Tensor:
        """Draws latents from the global random generator."""
        return self.mean + self.std * torch.randn_like(self.std)

    def divergence(self) -> Tensor:
        """Returns the KL divergence from the standard normal, summed over a clip and averaged over the B clips."""
        terms = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * terms.float().sum() / len(self.mean)


class KL(nn.Module):
    """Turns moments into latents: a draw in training, the mean at evaluation.

    Attributes:
        sample: Whether to draw at evaluation too.
    """

    sample = False

    def gaussian(self, moments: Tensor) -> Gaussian:
        """Splits moments (..., 2 C) into means and clamped log variances, (..., C) each."""
        mean, log_variance = moments.chunk(2, dim=-1)
        return Gaussian(mean, log_variance.clamp(*LOG_VARIANCE_RANGE))

    def forward(self, moments: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Maps moments (..., 2 C) to latents (..., C) and a log with ``kl_loss``, a scalar."""
        gaussian = self.gaussian(moments)
        z = gaussian.sample() if self.training or self.sample else gaussian.mean
        return z, {"kl_loss": gaussian.divergence()}
