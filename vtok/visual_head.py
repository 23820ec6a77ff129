"""Visual heads: ``p(V_j | V_<j, text)`` from the language model's last hidden state (paper, eqs. 5 and 10).

The target is a *frozen* feature, standardised per dimension: a trainable target collapses. One interface:

    loss(hidden (n, d), target (n, dim)) -> (n,)    loss of each position, averaged over its dimensions
    sample(hidden (n, d), temperature, generator) -> (n, dim)

Both are computed in fp32. With no rows at all (n = 0) the parameters still get a gradient, which is zero.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.config import VisualHeadConfig


class GaussianMixtureHead(nn.Module):
    """Mixture of K diagonal Gaussians; the loss is the negative log-likelihood divided by the dimension."""

    def __init__(self, hidden_dim: int, dim: int, components: int, min_scale: float):
        super().__init__()
        self.dim, self.components, self.min_scale = dim, components, min_scale
        self.linear = nn.Linear(hidden_dim, components * (1 + 2 * dim))

    def parameters_of(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights (n, K), means (n, K, dim) and standard deviations (n, K, dim), in fp32."""
        logits, mean, scale = (
            self.linear(hidden)
            .float()
            .split([self.components, self.components * self.dim, self.components * self.dim], dim=-1)
        )
        mean, scale = (x.unflatten(-1, (self.components, self.dim)) for x in (mean, scale))
        return logits.log_softmax(-1), mean, F.softplus(scale) + self.min_scale

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        log_weight, mean, scale = self.parameters_of(hidden)
        z = (target.float().unsqueeze(-2) - mean) / scale
        log_density = -0.5 * (z.square() + math.log(2 * math.pi)) - scale.log()
        return -torch.logsumexp(log_weight + log_density.sum(-1), dim=-1) / self.dim

    def sample(self, hidden: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        """Draws a component, then a value; ``temperature`` scales its standard deviation, 0 gives the likeliest mean.

        Drawn on the CPU, so that a seed gives the same sample on every device.
        """
        log_weight, mean, scale = self.parameters_of(hidden)
        if temperature == 0:
            component = log_weight.argmax(-1)
        else:
            component = torch.multinomial(log_weight.exp().cpu(), 1, generator=generator).squeeze(-1).to(mean.device)
        mean, scale = (x[torch.arange(len(x), device=x.device), component] for x in (mean, scale))
        noise = torch.randn(mean.shape, generator=generator)
        return mean + temperature * scale * noise.to(mean.device)


class RegressionHead(nn.Module):
    """Mean squared error; a sample is the mean, whatever the temperature."""

    def __init__(self, hidden_dim: int, dim: int):
        super().__init__()
        self.linear = nn.Linear(hidden_dim, dim)

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        return (self.linear(hidden).float() - target.float()).square().mean(-1)

    def sample(self, hidden: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        return self.linear(hidden).float()


def build_visual_head(config: VisualHeadConfig, hidden_dim: int, dim: int) -> nn.Module:
    """The head ``config.kind`` names, from hidden states of ``hidden_dim`` to targets of ``dim``."""
    if config.kind == "gmm":
        return GaussianMixtureHead(hidden_dim, dim, config.components, config.min_scale)
    return RegressionHead(hidden_dim, dim)


class FeatureScale(nn.Module):
    """Standardises a frozen feature per dimension; buffers ``mean`` and ``std`` (dim,), 0 and 1 until calibrated."""

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Fix the statistics; a dimension that never varies keeps a small positive ``std``."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(1e-4))

    def standardise(self, features: Tensor) -> Tensor:
        """Any dtype (..., dim) -> fp32."""
        return (features.float() - self.mean) / self.std

    def restore(self, standardised: Tensor) -> Tensor:
        return standardised * self.std + self.mean
