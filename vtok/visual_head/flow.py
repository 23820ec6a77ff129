"""``flow``: a small flow-matching network on the language model's states (after Li et al., 2024, diffusion head)."""

import torch
from torch import Tensor, nn

from vtok.config import VisualHeadConfig
from vtok.devices import to_device
from vtok.flow_matching import integrate, interpolate, shifted_logit_normal
from vtok.sampling import PLAIN, Sampling
from vtok.visual_head.base import VisualHead, guided
from vtok.visual_head.cells import Cells
from vtok.visual_head.draws import Generators, normal

FREQUENCIES = 32  # of the noise level's encoding


class FlowHead(VisualHead):
    """Predicts the velocity of one token's feature, given the hidden state before it.

    The loss is the squared error of the velocity at one noise level. It bounds -log p only up to a weighting, so
    compare this head with others by its samples, not by its loss.
    """

    def __init__(self, hidden_dim: int, dim: int, width: int, depth: int, steps: int):
        super().__init__()
        self.dim, self.steps = dim, steps
        self.noise_dim = 1 + dim
        self.input = nn.Linear(dim, width)
        self.condition = nn.Linear(hidden_dim, width)
        self.level = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(ModulatedBlock(width) for _ in range(depth))
        self.output = nn.Linear(width, dim)

    @classmethod
    def build(cls, config: VisualHeadConfig, hidden_dim: int, dim: int, cells: Cells | None) -> "FlowHead":
        return cls(hidden_dim, dim, config.width, config.depth, config.steps)

    def velocity(self, noisy: Tensor, sigma: Tensor, hidden: Tensor) -> Tensor:
        """Computes the velocity (n, dim), fp32, at ``noisy`` (n, dim) and noise level ``sigma`` (n, 1)."""
        dtype = self.input.weight.dtype
        condition = nn.functional.silu(self.condition(hidden) + self.level(sinusoids(sigma).to(dtype)))
        x = self.input(noisy.to(dtype))
        for block in self.blocks:
            x = block(x, condition)
        return self.output(x).float()

    def loss(self, hidden: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        sigma, noise = shifted_logit_normal(noise[:, :1], 1.0), noise[:, 1:]
        velocity = self.velocity(interpolate(target.float(), noise, sigma), sigma, hidden)
        return (velocity - (noise - target.float())).square().mean(-1)

    def sample(
        self,
        hidden: Tensor,
        sampling: Sampling = PLAIN,
        generators: Generators = None,
        without_text: Tensor | None = None,
    ) -> Tensor:
        """Follows the flow from noise to a feature. The temperature scales the noise; guidance leads the velocity."""
        noise = to_device(normal(torch.empty(len(hidden), self.dim), generators), hidden.device)

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            level = to_device(sigma, x.device).expand(len(x), 1)
            without = None if without_text is None else self.velocity(x, level, without_text)
            return guided(self.velocity(x, level, hidden), without, sampling)

        return integrate(velocity, sampling.temperature * noise, self.steps)


class ModulatedBlock(nn.Module):
    """A residual MLP. The condition shifts and scales its norm and gates its output."""

    def __init__(self, width: int):
        super().__init__()
        self.modulation = nn.Linear(width, 3 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


def sinusoids(sigma: Tensor) -> Tensor:
    """Encodes noise levels (n, 1) in 0..1 as sines and cosines (n, 2 * FREQUENCIES) of 1 to 1000 radians."""
    angles = sigma * torch.logspace(0, 3, FREQUENCIES, device=sigma.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
