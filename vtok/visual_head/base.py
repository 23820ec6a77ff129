"""The interface of a visual head."""

import torch
from torch import Tensor, nn

from vtok.config import VisualHeadConfig


class VisualHead(nn.Module):
    """A distribution over one visual feature, given the language model's state before it.

    Losses and samples are fp32. With no rows (n = 0) the parameters still get a gradient, which is zero.

    Attributes:
        noise_dim: Standard normal draws that the loss of one position takes.
    """

    noise_dim: int = 0

    @classmethod
    def build(cls, config: VisualHeadConfig, hidden_dim: int, dim: int, fsq_levels: int | None) -> "VisualHead":
        """Builds the head for states of ``hidden_dim`` and targets of ``dim``.

        Args:
            config: The settings.
            hidden_dim: Width of the language model.
            dim: Width of the features.
            fsq_levels: Levels per dimension, if the features are latents of an FSQ.
        """
        raise NotImplementedError

    def loss(self, hidden: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        """Computes the loss of each position, averaged over its dimensions: (n,).

        The caller draws the noise, so that it depends on the clip alone.

        Args:
            hidden: States (n, hidden_dim).
            target: Features (n, dim).
            noise: (n, noise_dim), standard normal.
        """
        raise NotImplementedError

    def sample(self, hidden: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        """Samples a feature (n, dim) for each state (n, hidden_dim).

        Args:
            hidden: The states.
            temperature: 0 gives a deterministic sample, 1 the distribution itself.
            generator: On the CPU, so a seed gives the same sample on every device.
        """
        raise NotImplementedError
