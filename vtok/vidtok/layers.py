"""Norms and convolutions on videos that lie channels last, (B, T, H, W, C), all along.

A convolution over space is then one over the (H, W) of B T images, and one over time one over the (T, H W) of B, and
nothing has to be moved. The modules have the published parameters' names and shapes. Convolutions are called with
``(x, stream, ...)``; those that look at one frame alone take no notice of the stream.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from vtok.vidtok.stream import Stream


class Norm(nn.Module):
    """Layer norm over the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class ActivatedNorm(Norm):
    """Layer norm, then x sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(x), inplace=True)


class SpaceConv(nn.Conv2d):
    """Over the height and width of each frame."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return on_frames(x, super().forward)


class TimeConv(nn.Conv1d):
    """Over the frames of each pixel."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        planes = x.flatten(2, 3).permute(0, 3, 1, 2)
        y = F.conv2d(planes, self.weight.unsqueeze(-1), self.bias, padding=(*self.padding, 0))
        return y.permute(0, 2, 3, 1).unflatten(2, x.shape[2:4])


class SpaceTimeConv(nn.Conv3d):
    """Over time, height and width."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return conv3d(in_zeros(x, *self.padding[:1] * 2), self.weight, self.bias)


class Pointwise(nn.Conv3d):
    """Of each pixel of each frame alone."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 1)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias)


class Causal(nn.Module):
    """A layer that sees past frames only.

    Args:
        conv: gives ``past`` frames fewer than it is given.
        replicate: whether a clip begins behind its own first frame (v1.1) rather than behind zeros (v1.0).
    """

    def __init__(self, conv: nn.Module, past: int, replicate: bool):
        super().__init__()
        self.conv, self.past, self.replicate = conv, past, replicate

    def forward(self, x: Tensor, stream: Stream, *options) -> Tensor:
        if self.past:
            x = stream.behind_past(self, x, self.past, self.replicate)
        return self.conv(x, stream, *options)


def in_zeros(x: Tensor, before: int, behind: int) -> Tensor:
    """(B, T, H, W, C) between so many frames of zeros."""
    return F.pad(x, (0, 0, 0, 0, 0, 0, before, behind)) if before or behind else x


def on_frames(x: Tensor, operation: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply an ``operation`` on images (n, C, H, W) to each frame of (B, T, H, W, C)."""
    images = operation(x.flatten(0, 1).permute(0, 3, 1, 2))
    return images.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def conv3d(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
    """``F.conv3d`` of (B, T, H, W, C), padded in space alone; ``stride`` is in time."""
    y = F.conv3d(x.permute(0, 4, 1, 2, 3), weight, bias, (stride, 1, 1), (0, 1, 1))
    return y.permute(0, 2, 3, 4, 1).contiguous()  # of few channels torch's result lies channels first
