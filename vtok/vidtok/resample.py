"""Halving and doubling of space and of time.

What the published models do in several steps is one convolution here. The learned blend of pooling (or copying) frames
and a convolution is a convolution with the blend of both kernels. Doubling by nearest neighbours, then a convolution,
is a convolution over the original for each of the places an original becomes: of three taps, two fall on the same pixel
and add up. That takes 4/9 of the multiplications in space and 2/3 in time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.vidtok.layers import SpaceConv, SpaceTimeConv, conv3d, in_zeros, on_frames
from vtok.vidtok.stream import Stream
from vtok.vidtok.time_rules import TimeRules

MIX_FACTOR = 2.0  # at the start
MEAN, MIDDLE, LAST = (1 / 3, 1 / 3, 1 / 3), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)  # kernels over time


def two_taps(kernel: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """What a kernel of three taps along ``dim`` does to doubled input, on the first and the second of each double."""
    before, here, after = kernel.split(1, dim)
    return torch.cat([before, here + after], dim), torch.cat([before + here, after], dim)


class SpaceDown(nn.Module):
    """Zeros on the right and at the bottom, then 3 x 3 with stride 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = SpaceConv(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self.conv(F.pad(x, (0, 0, 0, 1, 0, 1)))


class SpaceUp(nn.Module):
    """Doubling, then 3 x 3."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = DoublingSpaceConv(channels, channels, 3)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self.conv(x)


class DoublingSpaceConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return on_frames(x, self.on_images)

    def on_images(self, x: Tensor) -> Tensor:
        """(n, C, H, W) to (n, C', 2 H, 2 W)."""
        height, width = x.shape[2:]
        kernels = torch.cat([kernel for rows in two_taps(self.weight, 2) for kernel in two_taps(rows, 3)])
        places = F.conv2d(x, kernels, self.bias.repeat(4), padding=1).permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
        y = x.new_empty(len(x), height, 2, width, 2, self.out_channels)
        for row in (0, 1):
            for column in (0, 1):
                y[:, :, row, :, column] = places[:, row : row + height, column : column + width, row, column]
        return y.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class BlendedConv(SpaceTimeConv):
    """alpha (kernel over time) + (1 - alpha) (convolution)."""

    def forward(self, x: Tensor, stream: Stream, alpha: Tensor, kernel: tuple[float, ...]) -> Tensor:
        return conv3d(x, *self.blended(alpha, kernel), self.stride[0])

    def blended(self, alpha: Tensor, kernel: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution that does both."""
        channels = torch.arange(self.out_channels, device=self.weight.device)
        over_time = torch.zeros_like(self.weight)
        over_time[channels, channels, :, 1, 1] = over_time.new_tensor(kernel)
        return torch.lerp(self.weight, over_time, alpha), (1 - alpha) * self.bias


class DoublingTimeConv(BlendedConv):
    """Doubling, then a :class:`BlendedConv`. A causal one sees the past frame, a centred one those on both sides."""

    def forward(self, x: Tensor, stream: Stream, alpha: Tensor, causal: bool) -> Tensor:
        weight, bias = self.blended(alpha, LAST if causal else MIDDLE)
        first, second = two_taps(weight, 2)
        if causal:  # the taps lie one earlier
            windows = ((x, second), (x, first))
        else:
            x = in_zeros(x, 1, 1)
            windows = ((x[:, :-1], first), (x[:, 1:], second))
        return torch.stack([conv3d(part, taps, bias) for part, taps in windows], dim=2).flatten(1, 2)


class TimeResampling(nn.Module):
    """A layer over time with a learned blend."""

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv
        self.mix_factor = nn.Parameter(torch.tensor([MIX_FACTOR]))


class TimeDown(TimeResampling):
    """Mean of three frames, blended with a convolution over them, at every second frame."""

    def __init__(self, rules: TimeRules, channels: int):
        conv = BlendedConv(channels, channels, 3, stride=(2, 1, 1))
        super().__init__(rules.wrapped(conv, past=1))
        self.is_causal = rules.is_causal

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        x = stream.ready_to_halve(x) if self.is_causal else in_zeros(x, 0, 1)
        return self.conv(x, stream, self.mix_factor.sigmoid(), MEAN)


class TimeUp(TimeResampling):
    """Each frame twice, blended with a convolution over them."""

    def __init__(self, rules: TimeRules, channels: int):
        conv = DoublingTimeConv(channels, channels, 3)
        super().__init__(rules.wrapped(conv, past=1))
        self.is_causal = rules.is_causal

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self.conv(x, stream, self.mix_factor.sigmoid(), self.is_causal)


class InterpolatedTimeUp(TimeResampling):
    """Linear interpolation, blended with a convolution over it (v1.1)."""

    def __init__(self, rules: TimeRules, channels: int):
        super().__init__(rules.wrapped(BlendedConv(channels, channels, 3), past=2))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self.conv(stream.doubled(self, x), stream, self.mix_factor.sigmoid(), LAST)
