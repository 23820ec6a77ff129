"""Residual blocks, attention within a frame, and the levels that group blocks by resolution."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vtok.vidtok.layers import ActivatedNorm, Norm, SpaceConv
from vtok.vidtok.stream import Stream
from vtok.vidtok.time_rules import TimeRules

# Builds a layer from its numbers of input and output channels.
MakeLayer = Callable[[int, int], nn.Module]


class ResidualBlock(nn.Module):
    """Computes x + conv2(act(norm2(conv1(act(norm1(x)))))).

    Args:
        layer: Builds each of the two convolutions.
        channels_in: Channels of the input. If they differ from ``channels_out``, a 1 x 1 convolution maps the shortcut.
        channels_out: Channels of the output.
    """

    def __init__(self, layer: MakeLayer, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1, self.conv1 = ActivatedNorm(channels_in), layer(channels_in, channels_out)
        self.norm2, self.conv2 = ActivatedNorm(channels_out), layer(channels_out, channels_out)
        if channels_in != channels_out:
            self.nin_shortcut = SpaceConv(channels_in, channels_out, 1)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Maps (B, T, H, W, channels_in) to (B, T, H, W, channels_out)."""
        hidden = self.conv1(self.norm1(x), stream)
        hidden = self.conv2(self.norm2(hidden), stream)
        return hidden.add_(self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


def over_space(channels_in: int, channels_out: int) -> SpaceConv:
    """Builds a 3 x 3 convolution over the height and width of each frame."""
    return SpaceConv(channels_in, channels_out, 3, padding=1)


def space_block(channels_in: int, channels_out: int) -> ResidualBlock:
    """Builds a residual block over space."""
    return ResidualBlock(over_space, channels_in, channels_out)


def time_block(rules: TimeRules, channels: int) -> ResidualBlock:
    """Builds a residual block over time. It starts as the identity: its second convolution is zero."""
    block = ResidualBlock(rules.over_time, channels, channels)
    for parameter in block.conv2.parameters():
        nn.init.zeros_(parameter)
    return block


class FrameAttention(nn.Module):
    """Single-head self-attention among the pixels of one frame."""

    def __init__(self, rules: TimeRules, channels: int):
        super().__init__()
        self.norm = Norm(channels)
        self.q, self.k, self.v, self.proj_out = (rules.pointwise(channels) for _ in range(4))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Maps (B, T, H, W, C) to the same shape."""
        normed = self.norm(x)
        q, k, v = (layer(normed, stream).flatten(2, 3) for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v).unflatten(2, x.shape[2:4])
        return x + self.proj_out(attended, stream)


class Runner:
    """Runs blocks.

    Attributes:
        checkpointing: Whether a block keeps only its input in training, and computes the rest again in backward.
    """

    def __init__(self) -> None:
        self.checkpointing = False

    def __call__(self, block: nn.Module, x: Tensor, stream: Stream) -> Tensor:
        """Maps (B, T, H, W, C) with a block.

        A checkpointed block gets a stream of its own, since the other has moved on when the block runs again. So only
        clips in one chunk are checkpointed.
        """
        if self.checkpointing and torch.is_grad_enabled() and stream.first and stream.last:
            return checkpoint(block, x, Stream(stream.repeats), use_reentrant=False)
        return block(x, stream)


class Level(nn.Module):
    """The blocks of one resolution, over space or over time.

    Attributes:
        block: The blocks, in order.
        downsample: Runs after the blocks. Only some levels of the encoder have it.
        upsample: Runs after the blocks. Only some levels of the decoder have it.
    """

    block: nn.ModuleList
    downsample: nn.Module
    upsample: nn.Module

    def __init__(self, blocks: list[nn.Module]):
        super().__init__()
        self.block = nn.ModuleList(blocks)


class Middle(nn.Module):
    """Attention between two space-time blocks, at the lowest resolution."""

    def __init__(self, rules: TimeRules, channels: int):
        super().__init__()
        self.block_1 = ResidualBlock(rules.over_space_time, channels, channels)
        self.attn_1 = FrameAttention(rules, channels)
        self.block_2 = ResidualBlock(rules.over_space_time, channels, channels)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Maps (B, T, H, W, C) to the same shape."""
        return self.block_2(self.attn_1(self.block_1(x, stream), stream), stream)
