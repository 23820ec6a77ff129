"""``mse``: regression to the mean; no density, and no sampling."""

import torch
from torch import Tensor, nn


class RegressionHead(nn.Module):
    """Mean squared error; a sample is the mean, whatever the temperature."""

    noise_dim = 0

    def __init__(self, hidden_dim: int, dim: int):
        super().__init__()
        self.linear = nn.Linear(hidden_dim, dim)

    def loss(self, hidden: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        return (self.linear(hidden).float() - target.float()).square().mean(-1)

    def sample(self, hidden: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        return self.linear(hidden).float()
