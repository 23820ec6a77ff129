"""Halving and doubling of space and of time.

Where the published models take several steps, the layers here take fewer, with the same result:

- The AlphaBlender, a learned mix of pooled (or copied) frames and a convolution, is one convolution whose kernel is the
  same mix of both kernels.
- Doubling by nearest neighbours and then convolving is a convolution of the original. Of a kernel's three taps along an
  axis, two fall on copies of the same pixel, so their weights add up. Each output position has its own two-tap kernel.
  In space this takes 4/9 of the multiplications.
- In time, the outputs of both copies have products in common. Each tap is applied once to each original, which takes
  half of the multiplications. This also holds for interpolated frames (v1.1).
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.vidtok.layers import SpaceConv, SpaceTimeConv, conv3d, in_zeros, on_frames
from vtok.vidtok.stream import Stream
from vtok.vidtok.time_rules import TimeRules

MIX_FACTOR = 2.0  # initial value; the mix is its sigmoid
MEAN, MIDDLE, LAST = (1 / 3, 1 / 3, 1 / 3), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)  # kernels over time


def two_taps(kernel: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Splits a kernel of three taps along ``dim``, to be applied to doubled input, into two kernels of two taps.

    Returns:
        The kernel of the first and that of the second copy of each input, both to be applied to the original.
    """
    before, here, after = kernel.split(1, dim)
    return torch.cat([before, here + after], dim), torch.cat([before + here, after], dim)


class SpaceDown(nn.Module):
    """Halves height and width: pads zeros on the right and at the bottom, then convolves 3 x 3 with stride 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = SpaceConv(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Maps (B, T, H, W, C) to (B, T, H / 2, W / 2, C)."""
        return self.conv(F.pad(x, (0, 0, 0, 1, 0, 1)))


class SpaceUp(nn.Module):
    """Doubles height and width by nearest neighbours, then convolves 3 x 3."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = DoublingSpaceConv(channels, channels, 3)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Maps (B, T, H, W, C) to (B, T, 2 H, 2 W, C)."""
        return self.conv(x)


class DoublingSpaceConv(nn.Conv2d):
    """Doubles height and width and convolves 3 x 3, in one convolution of the original."""

    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, H, W, C) to (B, T, 2 H, 2 W, C')."""
        return on_frames(x, self.on_images)

    def on_images(self, x: Tensor) -> Tensor:
        """Maps images (n, C, H, W) to (n, C', 2 H, 2 W)."""
        height, width = x.shape[2:]
        kernels = torch.cat([kernel for rows in two_taps(self.weight, 2) for kernel in two_taps(rows, 3)])
        places = F.conv2d(x, kernels, self.bias.repeat(4), padding=1).permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
        y = x.new_empty(len(x), height, 2, width, 2, self.out_channels)
        for row in (0, 1):
            for column in (0, 1):
                y[:, :, row, :, column] = places[:, row : row + height, column : column + width, row, column]
        return y.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class BlendedConv(SpaceTimeConv):
    """Computes alpha (a fixed kernel over time) + (1 - alpha) (the convolution)."""

    def forward(  # type: ignore[override]  # the blend needs more than one input
        self, x: Tensor, stream: Stream, alpha: Tensor, kernel: tuple[float, ...]
    ) -> Tensor:
        """Maps (B, T, H, W, C) to (B, T', H, W, C').

        Args:
            x: The video, with the padding in time that the convolution needs.
            stream: Not used.
            alpha: The blend, (1,).
            kernel: Three weights over time.
        """
        return conv3d(x, *self.blended(alpha, kernel), int(self.stride[0]))

    def blended(self, alpha: Tensor, kernel: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        """Returns weight and bias of the convolution that computes the blend."""
        channels = torch.arange(self.out_channels, device=self.weight.device)
        over_time = torch.zeros_like(self.weight)
        over_time[channels, channels, :, 1, 1] = over_time.new_tensor(kernel)
        return torch.lerp(self.weight, over_time, alpha), (1 - alpha) * self.bias


class DoublingTimeConv(BlendedConv):
    """Doubles time by copying frames, then applies a :class:`BlendedConv`, in convolutions of the original.

    The outer taps of the kernel fall on neighbouring originals, for the first copy and for the second. So both copies
    share the sum of the outer taps, and the middle tap is computed once per original.
    """

    def forward(  # type: ignore[override]  # the fixed kernel follows from ``causal``
        self, x: Tensor, stream: Stream, alpha: Tensor, causal: bool
    ) -> Tensor:
        """Maps (B, T, H, W, C), or one past frame more if ``causal``, to (B, 2 T, H, W, C').

        Args:
            x: The video.
            stream: Not used.
            alpha: The blend, (1,).
            causal: Whether an output sees the past frame only, rather than the frames on both sides.
        """
        weight, bias = self.blended(alpha, LAST if causal else MIDDLE)
        middle = on_frames(x, partial(F.conv2d, weight=weight[:, :, 1], bias=bias, padding=1))
        outer = conv3d(x if causal else in_zeros(x, 1, 1), weight[:, :, ::2])
        same, different = (outer, middle) if causal else (middle, outer)  # of both copies
        y = torch.stack([same, same], dim=2)
        y[:, :, 0] += different[:, :-1]
        y[:, :, 1] += different[:, 1:]
        return y.flatten(1, 2)


class InterpolatingTimeConv(BlendedConv):
    """Doubles time by interpolation, then applies a :class:`BlendedConv`, in convolutions of the original.

    A tap over time is a convolution over space, and convolves a mix of two frames to the mix of their results. So each
    tap convolves the original frames, which are half as many, and its results are interpolated.
    """

    def forward(  # type: ignore[override]  # the fixed kernel is ``LAST``
        self, x: Tensor, stream: Stream, alpha: Tensor
    ) -> Tensor:
        """Maps (B, T, H, W, C) to about twice as many frames; see :meth:`Stream.doubled`.

        Args:
            x: The video.
            stream: The state of the pass; it has the doubled frame rate already.
            alpha: The blend, (1,).
        """
        weight, bias = self.blended(alpha, LAST)
        before, middle, last = weight.unbind(2)
        y = self.doubled_tap(x, stream, 0, last, bias)
        for delay, tap in ((1, middle), (2, before)):
            stream.add_delayed((self, delay), y, self.doubled_tap(x, stream, delay, tap), delay)
        return y

    def doubled_tap(self, x: Tensor, stream: Stream, delay: int, tap: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolves the frames with one tap, (C', C, 3, 3), and doubles the result."""
        part = on_frames(x, partial(F.conv2d, weight=tap, bias=bias, padding=1))
        return stream.doubled((self, "doubled", delay), part)


class TimeResampling(nn.Module):
    """Base of the layers that halve or double time with a learned blend.

    Attributes:
        mix_factor: The blend before the sigmoid, (1,).
    """

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv
        self.mix_factor = nn.Parameter(torch.tensor([MIX_FACTOR]))


class TimeDown(TimeResampling):
    """Halves time: the mean of three frames, blended with a convolution of them, at every second frame."""

    def __init__(self, rules: TimeRules, channels: int):
        conv = BlendedConv(channels, channels, 3, stride=(2, 1, 1))
        super().__init__(rules.wrapped(conv, past=1))
        self.is_causal = rules.is_causal

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Maps (B, T, H, W, C) to (B, T / 2, H, W, C)."""
        x = stream.ready_to_halve(x) if self.is_causal else in_zeros(x, 0, 1)
        return self.conv(x, stream, self.mix_factor.sigmoid(), MEAN)


class TimeUp(TimeResampling):
    """Doubles time: each frame twice, blended with a convolution of the copies (v1.0 and non-causal)."""

    def __init__(self, rules: TimeRules, channels: int):
        conv = DoublingTimeConv(channels, channels, 3)
        super().__init__(rules.wrapped(conv, past=1))
        self.is_causal = rules.is_causal

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Maps (B, T, H, W, C) to (B, 2 T, H, W, C)."""
        return self.conv(x, stream, self.mix_factor.sigmoid(), self.is_causal)


class InterpolatedTimeUp(TimeResampling):
    """Doubles time: linear interpolation, blended with a convolution of the result (v1.1)."""

    def __init__(self, rules: TimeRules, channels: int):
        super().__init__(rules.wrapped(InterpolatingTimeConv(channels, channels, 3)))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Maps (B, T, H, W, C) to about twice as many frames; see :meth:`Stream.doubled`."""
        stream.double_rate()
        return self.conv(x, stream, self.mix_factor.sigmoid())
