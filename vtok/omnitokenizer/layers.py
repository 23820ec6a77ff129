"""The layers of an OmniTokenizer. Parameters have the names of the published checkpoints.

The published code attends with torch's ``scaled_dot_product_attention``, which leaves out its biases by distance. So do
we. Parameters that no output depends on are left out: those biases, and the norm of an absent context.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.devices import to_device
from vtok.omnitokenizer.config import OmniTokenizerConfig

SCALE = 8.0  # of the cosines of queries and keys
Shape = tuple[int, int, int, int]  # videos, frames, rows, columns


class Norm(nn.Module):
    """A layer norm without a bias."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gamma)


class Surroundings(nn.Module):
    """Adds a depthwise convolution, by which a patch knows its place. It looks back in time only.

    The published code gives it sequences over time in the order of their memory, as if they were frames. Its weights
    were trained so, and the same is done here.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dsconv = nn.Conv3d(dim, dim, 3, groups=dim)

    def forward(self, x: Tensor, shape: Shape) -> Tensor:
        """Maps sequences (n, length, dim), of a video of the given shape, to the same shape."""
        video = x.reshape(*shape, -1).movedim(-1, 1)
        found = self.dsconv(F.pad(video, (1, 1, 1, 1, 2, 0)))
        return x + found.movedim(1, -1).reshape(x.shape)


class Attention(nn.Module):
    """Attention by the cosine of queries and keys. Keys and values are those of the input before its norm."""

    def __init__(self, config: OmniTokenizerConfig, causal: bool):
        super().__init__()
        dim, inner = config.embedding_dim, config.heads * config.dim_head
        self.heads, self.causal = config.heads, causal
        self.rope = config.spatial_pos == "rope" and not causal
        self.norm = Norm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.q_scale, self.k_scale = (nn.Parameter(torch.ones(config.dim_head)) for _ in range(2))
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor, columns: int) -> Tensor:
        """Maps sequences (n, length, dim) to the same shape. ``columns`` is the width of a frame, in patches."""
        projected = self.to_q(self.norm(x)), *self.to_kv(x).chunk(2, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in projected)
        if self.rope:
            turn = to_device(turns(x.shape[1], columns, query.shape[-1]), x.device)
            query, key = turned(query, turn), turned(key, turn)
        query, key = F.normalize(query, dim=-1) * self.q_scale, F.normalize(key, dim=-1) * self.k_scale
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal, scale=SCALE)
        return x + self.to_out(seen.transpose(1, 2).flatten(2))


class WindowAttention(nn.Module):
    """Attention within windows of a frame, with a learned bias for each distance."""

    def __init__(self, config: OmniTokenizerConfig):
        super().__init__()
        dim, self.side, self.heads = config.embedding_dim, config.twod_window_size, config.heads
        self.norm = Norm(dim)
        self.relative_position_bias_table = nn.Parameter(0.02 * torch.randn((2 * self.side - 1) ** 2, self.heads))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, columns: int) -> Tensor:
        """Maps frames (n, rows * columns, dim) to the same shape."""
        side = self.side
        frames = self.norm(x).unflatten(1, (-1, side, columns // side, side)).transpose(2, 3)
        windows = frames.flatten(3, 4).flatten(0, 2)
        query, key, value = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        index = to_device(distances(side), x.device)
        bias = self.relative_position_bias_table[index.flatten()].view(*index.shape, -1).permute(2, 0, 1)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype).contiguous())
        seen = self.proj(seen.transpose(1, 2).flatten(2))
        return x + seen.view(frames.shape).transpose(2, 3).reshape(x.shape)


class GEGLU(nn.Module):
    """Half of the input gates the other half."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return F.gelu(gate) * value


def feed_forward(config: OmniTokenizerConfig) -> nn.Sequential:
    """Builds an MLP with a norm before it. Where the published one has its dropout, nothing happens."""
    dim = config.embedding_dim
    inner = int(config.ff_mult * (2 / 3) * dim)
    up, down = nn.Linear(dim, 2 * inner, bias=False), nn.Linear(inner, dim, bias=False)
    return nn.Sequential(nn.LayerNorm(dim), up, GEGLU(), nn.Identity(), down)


class Transformer(nn.Module):
    """Layers of attention and MLP, and a norm.

    Args:
        config: The sizes.
        blocks: A letter for each layer (see ``enc_block``).
        causal: Whether a place sees only those before it: for sequences over time.
    """

    def __init__(self, config: OmniTokenizerConfig, blocks: str, causal: bool = False):
        super().__init__()
        # The keys are places in the published list of layers.
        self.layers = nn.ModuleList(
            nn.ModuleDict({"1": WindowAttention(config), "3": feed_forward(config)})
            if block == "w"
            else nn.ModuleDict(
                {"0": Surroundings(config.embedding_dim), "1": Attention(config, causal), "3": feed_forward(config)}
            )
            for block in blocks
        )
        self.norm_out = Norm(config.embedding_dim)

    def forward(self, x: Tensor, shape: Shape) -> Tensor:
        """Maps sequences (n, length, dim), of a video of the given shape, to the same shape."""
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleDict)
            if "0" in layer:
                x = layer["0"](x, shape)
            x = layer["1"](x, shape[3])
            x = x + layer["3"](x)
        return self.norm_out(x)


def turns(length: int, columns: int, dim: int) -> Tensor:
    """Returns the angles (length, dim / 2) by which the place in a frame turns pairs of dimensions.

    Even pairs turn by the column, odd ones by the row.
    """
    frequencies = 10000.0 ** (-torch.arange(0, dim, 4).float() / dim)
    place = torch.arange(length)
    by_column, by_row = (torch.outer(axis.float(), frequencies) for axis in (place % columns, place // columns))
    return torch.stack([by_column, by_row], dim=-1).flatten(1)


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Turns neighbouring pairs of the last dimension of x (..., length, dim) by angles (length, dim / 2)."""
    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1).flatten(-2).to(x.dtype)


def distances(side: int) -> Tensor:
    """Returns the row of the table of biases for each pair of places in a window, (side², side²)."""
    rows, columns = (axis.flatten() for axis in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    vertical, horizontal = (axis[:, None] - axis[None] + side - 1 for axis in (rows, columns))
    return vertical * (2 * side - 1) + horizontal
