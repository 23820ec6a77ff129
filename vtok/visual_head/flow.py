"""``flow``: a small flow-matching network beside the language model (after Li et al., 2024, MAR's diffusion head)."""

import torch
from torch import Tensor, nn

from vtok.devices import to_device
from vtok.flow_matching import integrate, interpolate, shifted_logit_normal

FREQUENCIES = 32


class FlowHead(nn.Module):
    """Velocity of one token's feature, conditioned on the hidden state before it.

    The loss is the squared error of the velocity at one noise level; it bounds -log p only up to a weighting, and so
    compares with the other heads' in its samples, not in its value.
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

    def velocity(self, noisy: Tensor, sigma: Tensor, hidden: Tensor) -> Tensor:
        """(n, dim) in fp32 at ``noisy`` (n, dim) of noise level ``sigma`` (n, 1)."""
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

    def sample(self, hidden: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        """Follows the flow from noise; ``temperature`` scales the noise it starts from."""
        noise = to_device(torch.randn(len(hidden), self.dim, generator=generator), hidden.device)
        return integrate(
            lambda x, sigma: self.velocity(x, to_device(sigma, x.device).expand(len(x), 1), hidden),
            temperature * noise,
            self.steps,
        )


class ModulatedBlock(nn.Module):
    """A residual MLP whose norm is shifted and scaled, and whose output is gated, by the condition."""

    def __init__(self, width: int):
        super().__init__()
        self.modulation = nn.Linear(width, 3 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


def sinusoids(sigma: Tensor) -> Tensor:
    """Noise levels (n, 1) in 0..1 as (n, 2 * FREQUENCIES) sines and cosines, from one to 1000 radians."""
    angles = sigma * torch.logspace(0, 3, FREQUENCIES, device=sigma.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
