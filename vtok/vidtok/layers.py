"""Norms and convolutions on channels-last videos, (B, T, H, W, C).

A convolution over space then runs over the (H, W) of B T images, and one over time over the (T, H W) of B planes.
Neither has to move data. The modules have the published parameters' names and shapes. Convolutions are called with
``(x, stream, ...)``; those that only see one frame ignore the stream.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.vidtok.stream import Stream


class Norm(nn.Module):
    """Layer norm over the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., C) to the same shape."""
        return self.norm(x)


class ActivatedNorm(Norm):
    """Layer norm over the channels, then SiLU: x sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., C) to the same shape."""
        return F.silu(self.norm(x), inplace=True)


class SpaceConv(nn.Conv2d):
    """A convolution over the height and width of each frame."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """Maps (B, T, H, W, C) to (B, T, H', W', C')."""
        return on_frames(x, super().forward)


class TimeConv(nn.Conv1d):
    """A convolution over the frames of each pixel."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """Maps (B, T, H, W, C) to (B, T', H, W, C')."""
        planes = x.flatten(2, 3).permute(0, 3, 1, 2)
        y = F.conv2d(planes, self.weight.unsqueeze(-1), self.bias, padding=(int(self.padding[0]), 0))
        return y.permute(0, 2, 3, 1).unflatten(2, x.shape[2:4])

    def behind(self, past: Tensor, x: Tensor) -> Tensor:
        """Convolves (B, T, H, W, C) behind its two past frames, (B, 2, H, W, C), as one product of matrices per tap.

        The products are added up in place, and ``past`` and ``x`` need not lie in one tensor. On a CPU this takes two
        thirds of the time of copying both into one tensor and convolving it. Without gradients only.
        """
        y = F.linear(x, self.weight[..., 2], self.bias)
        for tap in (0, 1):
            delay = 2 - tap
            add_product(y[:, delay:], x[:, : max(x.shape[1] - delay, 0)], self.weight[..., tap])
            add_product(y[:, :delay], past[:, tap:][:, : y.shape[1]], self.weight[..., tap])
        return y


class SpaceTimeConv(nn.Conv3d):
    """A convolution over time, height and width."""

    bias: Tensor

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """Maps (B, T, H, W, C) to (B, T', H, W, C')."""
        before = behind = int(self.padding[0])
        return conv3d(in_zeros(x, before, behind), self.weight, self.bias)


class Pointwise(nn.Conv3d):
    """A 1 x 1 x 1 convolution: a linear map of each pixel of each frame."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 1)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """Maps (..., C) to the same shape."""
        return F.linear(x, self.weight.flatten(1), self.bias)


class Causal(nn.Module):
    """Wraps a layer so that it sees the present frame and past frames only.

    Args:
        conv: The layer. It returns ``past`` frames fewer than it takes.
        past: Past frames that the layer sees.
        replicate: Whether a clip is preceded by copies of its first frame (v1.1) rather than by zeros (v1.0).
    """

    def __init__(self, conv: nn.Module, past: int, replicate: bool):
        super().__init__()
        self.conv, self.past, self.replicate = conv, past, replicate

    def forward(self, x: Tensor, stream: Stream, *options) -> Tensor:
        """Calls the layer on the past frames and ``x`` (B, T, H, W, C); ``options`` are passed on to it."""
        if not self.past:
            return self.conv(x, stream, *options)
        past = stream.past(self, x, self.past, self.replicate)
        if isinstance(self.conv, TimeConv) and is_plain_cpu(x):
            return self.conv.behind(past, x)
        return self.conv(torch.cat([past, x], dim=1), stream, *options)


def is_plain_cpu(x: Tensor) -> bool:
    """Tells whether ``x`` is computed with on a CPU, in fp32 and without gradients."""
    plain = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return plain and x.device.type == "cpu" and x.dtype == torch.float32


def add_product(y: Tensor, x: Tensor, weight: Tensor) -> None:
    """Adds the linear map of ``x`` (B, T, H, W, C) with ``weight`` (C', C) to ``y`` in place."""
    for sums, sample in zip(y, x):
        sums.flatten(0, 2).addmm_(sample.flatten(0, 2), weight.T)


def in_zeros(x: Tensor, before: int, behind: int) -> Tensor:
    """Pads (B, T, H, W, C) in time: ``before`` frames of zeros before it and ``behind`` after it."""
    return F.pad(x, (0, 0, 0, 0, 0, 0, before, behind)) if before or behind else x


def on_frames(x: Tensor, operation: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies an ``operation`` on images (n, C, H, W) to each frame of (B, T, H, W, C)."""
    images = operation(x.flatten(0, 1).permute(0, 3, 1, 2))
    return images.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """Applies ``F.conv3d`` to (B, T, H, W, C), with one pixel of zeros around each frame and none in time.

    Args:
        x: The video.
        weight: (C', C, n, 3, 3).
        bias: (C',), or none.
        stride: Stride in time.
    """
    y = F.conv3d(x.permute(0, 4, 1, 2, 3), weight, bias, (stride, 1, 1), (0, 1, 1))
    return y.permute(0, 2, 3, 4, 1).contiguous()  # with few channels torch returns a channels-first result
