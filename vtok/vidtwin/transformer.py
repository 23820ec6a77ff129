"""The space-time transformer that is VidTwin's encoder and, with a last layer, its decoder.

Videos of patches are (B, T, S, C): S places of T frames. The modules have the published parameters' names.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.vidtwin.config import VidTwinConfig

EPS = 1e-6
MLP_RATIO = 4
BASE = 10000.0  # of the positions' wavelengths


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
        width: Channels.
        heads: Number of heads.
        causal: Whether no element sees a later one.
    """

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, N, C) to the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(seen.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with a GELU (its tanh form) between them."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., C) to the same shape."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Attention within each frame, causal attention of each place over time, and an MLP.

    One gate belongs to both attentions. Attention over time reads the sum itself, without a norm.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = Attention(width, heads, causal=False)
        self.attn_temp = Attention(width, heads, causal=True)
        self.mlp = MLP(width)
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(self, x: Tensor, times: Tensor | None = None) -> Tensor:
        """Maps (B, T, S, C) to the same shape; ``times`` (T, C) are added before the attention over time."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.scale_shift_table
        seen = self.attn(modulated(x, shift, scale).flatten(0, 1)).unflatten(0, x.shape[:2])
        x = x + gate * seen
        over_time = x.transpose(1, 2).flatten(0, 1)
        over_time = self.attn_temp(over_time if times is None else over_time + times)
        x = x + gate * over_time.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
        return x + gate_mlp * self.mlp(modulated(x, shift_mlp, scale_mlp))


class FinalLayer(nn.Module):
    """Maps each patch to its pixels."""

    def __init__(self, width: int, values: int):
        super().__init__()
        self.linear = nn.Linear(width, values)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., C) to (..., values)."""
        shift, scale = self.scale_shift_table
        return self.linear(modulated(x, shift, scale))


class Patches(nn.Module):
    """Maps the pixels of each patch to a vector."""

    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, 3, T, H, W) to (B, T, S, C)."""
        return self.proj(x).flatten(3).permute(0, 2, 3, 1)


class SpaceTimeTransformer(nn.Module):
    """The blocks, and the positions of patches and frames. Positions are sines and cosines, no weights."""

    places: Tensor
    times: Tensor

    def __init__(self, config: VidTwinConfig):
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.register_buffer("places", positions_in_space(config.width, config.grid), persistent=False)
        self.register_buffer("times", positions(config.width, torch.arange(config.frames)).float(), persistent=False)

    def run(self, x: Tensor) -> Tensor:
        """Maps (B, T, S, C) to the same shape."""
        x = x + self.places
        for number, block in enumerate(self.blocks):
            x = block(x, self.times if number == 0 else None)
        return x


class Encoder(SpaceTimeTransformer):
    """Maps frames (B, 3, T, H, W) in [-1, 1] to features (B, T, h, w, C)."""

    def __init__(self, config: VidTwinConfig):
        super().__init__(config)
        self.x_embedder = Patches(config.width, config.patch)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.run(self.x_embedder(x)).unflatten(2, (self.config.grid, self.config.grid))


class Decoder(SpaceTimeTransformer):
    """Maps features (B, T, h, w, C) to frames (B, 3, T, H, W)."""

    def __init__(self, config: VidTwinConfig):
        super().__init__(config)
        self.final_layer = FinalLayer(config.width, 3 * config.patch**2)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        grid, patch = self.config.grid, self.config.patch
        pixels = self.final_layer(self.run(x.flatten(2, 3)))
        pixels = pixels.unflatten(2, (grid, grid)).unflatten(-1, (patch, patch, 3))  # (B, T, h, w, p, p, 3)
        return pixels.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalises (..., C) over the channels, then scales it by 1 + ``scale`` and shifts it; both are (C,)."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


def positions(width: int, at: Tensor) -> Tensor:
    """Returns sines, then cosines, (n, width) in fp64, of the numbers ``at`` (n,) at geometric wavelengths."""
    rates = BASE ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = at.double()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def positions_in_space(width: int, grid: int) -> Tensor:
    """Returns the positions of a frame's patches, (grid^2, width): first what tells the column, then the row."""
    row, column = (place.flatten() for place in torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij"))
    return torch.cat([positions(width // 2, column), positions(width // 2, row)], dim=1).float()
