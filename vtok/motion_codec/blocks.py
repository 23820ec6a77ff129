"""The layers of a motion codec: attention over space, then over time, on vectors (B, T, H, W, C)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from vtok.motion_codec.config import Stride


class Attention(nn.Module):
    """Attention of each sequence to itself, added to its input."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, length, C) to the same shape."""
        query, key, value = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value)
        return x + self.output(seen.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A cell attends to the cells of its frame, then to itself in the other frames; then an MLP."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.space, self.time = Attention(channels, heads), Attention(channels, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, H, W, C) to the same shape."""
        shape = x.shape
        x = self.space(x.reshape(shape[0] * shape[1], -1, shape[-1])).view(shape)
        across = x.movedim(1, 3).reshape(-1, shape[1], shape[-1])
        x = self.time(across).view(shape[0], shape[2], shape[3], shape[1], shape[4]).movedim(3, 1)
        return x + self.mlp(x)


class Merge(nn.Module):
    """Joins t x h x w neighbours to one vector."""

    def __init__(self, channels: int, stride: Stride):
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(math.prod(stride) * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, H, W, C) to (B, T / t, H / h, W / w, C)."""
        t, h, w = self.stride
        parts = x.unflatten(1, (-1, t)).unflatten(3, (-1, h)).unflatten(5, (-1, w))  # B, T, t, H, h, W, w, C
        return self.linear(parts.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4))


class Split(nn.Module):
    """Makes t x h x w neighbours of one vector."""

    def __init__(self, channels: int, stride: Stride):
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(channels, math.prod(stride) * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, H, W, C) to (B, t T, h H, w W, C)."""
        parts = self.linear(x).unflatten(-1, (*self.stride, x.shape[-1]))  # B, T, H, W, t, h, w, C
        parts = parts.permute(0, 1, 4, 2, 5, 3, 6, 7)
        return parts.flatten(1, 2).flatten(2, 3).flatten(3, 4)
