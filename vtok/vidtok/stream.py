"""The frames that a layer over time sees before its input, for whole clips and for chunks of a longer video.

A causal layer sees past frames. Before the first chunk there are none: v1.0 pads with zeros, v1.1 with copies of the
first frame. Before a later chunk the past is the layer's own last inputs, which a :class:`Stream` keeps.

In v1.1 copies of the first frame stay identical in every layer, because each copy sees only copies. So one frame is
computed for all of them, and the stream counts how many frames it stands for.
"""

from collections.abc import Hashable

import torch
from torch import Tensor

# What has a past of its own: a layer over time, or a part of one.
Layer = Hashable


class Stream:
    """One pass over a video through an encoder or a decoder, in one or more chunks.

    Args:
        repeats: Initial value of the attribute.
        last: Initial value of the attribute.

    Attributes:
        first: Whether the current chunk begins the video.
        last: Whether the current chunk ends the video.
        repeats: In a first chunk, how many identical frames the first frame stands for, at the frame rate of the
            current layer.
        kept: The last input frames of each layer over time, (B, n, H, W, C).
    """

    def __init__(self, repeats: int = 1, last: bool = True):
        self.first, self.last, self.repeats = True, last, repeats
        self.kept: dict[Layer, Tensor] = {}

    def next(self) -> None:
        """Ends the current chunk."""
        self.first, self.repeats = False, 1
        if self.last:
            self.kept.clear()

    def keep(self, layer: Layer, frames: Tensor) -> None:
        """Stores the past that a layer will see before the next chunk.

        The frames are copied, because a view would keep the whole chunk in memory.
        """
        if not self.last:
            self.kept[layer] = frames.clone()

    def past(self, layer: Layer, x: Tensor, count: int, replicate: bool) -> Tensor:
        """Returns the past of a layer, and keeps the past of the next chunk.

        Args:
            layer: The layer.
            x: Its input, (B, T, H, W, C).
            count: Past frames that it sees.
            replicate: See :class:`vtok.vidtok.layers.Causal`.

        Returns:
            The frames before ``x``, (B, count, H, W, C).
        """
        if not self.first:
            past = self.kept[layer]
        elif replicate:
            past = x[:, :1].expand(-1, count, -1, -1, -1)
        else:
            past = x.new_zeros(len(x), count, *x.shape[2:])
        if not self.last:
            recent = torch.cat([past, x[:, -(count + self.ahead) :]], dim=1)
            end = recent.shape[1] - self.ahead
            self.keep(layer, recent[:, end - count : end])
        return past

    @property
    def ahead(self) -> int:
        """Frames at the end of the current chunk that belong to the next."""
        return 0

    def add_delayed(self, layer: Layer, y: Tensor, x: Tensor, delay: int) -> None:
        """Adds ``x``, ``delay`` frames later, to ``y`` in place. Both are (B, T, H, W, C).

        The first frames of ``y`` get the end of the last chunk's ``x``, or copies of the first frame.
        """
        past = self.past(layer, x, delay, replicate=True)
        y[:, delay:].add_(x[:, : max(x.shape[1] - delay, 0)])
        y[:, :delay].add_(past[:, : y.shape[1]])

    def ready_to_halve(self, x: Tensor) -> Tensor:
        """Prepares the input (B, T, H, W, C) of a layer that outputs every second frame.

        The first frame stands for r identical frames. The first r // 2 outputs see only these and are identical, so one
        of them is computed. It and the outputs after it need two of the identical frames if r is even, three if it is
        odd. This method inserts the missing copies and halves ``repeats``.
        """
        copies = 0 if self.repeats == 1 else 1 + self.repeats % 2
        self.repeats = max(1, self.repeats // 2)
        return torch.cat([x[:, :1].expand(-1, copies, -1, -1, -1), x], dim=1) if copies else x

    def double_rate(self) -> None:
        """Says that the layers from here on have twice the frame rate."""
        self.repeats *= 2

    def doubled(self, layer: Layer, x: Tensor) -> Tensor:
        """Doubles the frames of (B, T, H, W, C) by linear interpolation, to the frame rate that the stream has now.

        The first frame of a video is not interpolated. The second half of any other frame mixes it with the next frame,
        so at the end of a chunk it comes with the next chunk; at the end of the video it is a copy.

        Args:
            layer: The layer that asks; its last frame is kept for the next chunk.
            x: Its input.
        """
        head, begins = (1, True) if self.first else (0, self.kept[layer].shape[1] == 0)
        if not self.first:
            x = torch.cat([self.kept[layer], x], dim=1)
        self.keep(layer, x[:, head:][:, -1:])
        return interpolated(x, head, begins, self.last)


def interpolated(x: Tensor, head: int, with_start: bool, with_end: bool) -> Tensor:
    """Interpolates (B, T, ...) linearly to twice the frame rate.

    Args:
        x: The frames.
        head: How many of the first frames are taken as they are, and not interpolated with the others.
        with_start: Whether the first of the others comes before what is interpolated.
        with_end: Whether the last of the others comes behind it.

    Returns:
        The head, the start, the 2 (T - head - 1) frames between the others, and the end.
    """
    rest = x[:, head:]
    if not rest.shape[1]:
        return x
    count = with_start + 2 * (rest.shape[1] - 1) + with_end
    y = x.new_empty(len(x), head + count, *x.shape[2:])
    y[:, :head] = x[:, :head]
    y[:, head : head + with_start] = rest[:, :with_start]
    y[:, y.shape[1] - with_end :] = rest[:, rest.shape[1] - with_end :]
    between = y[:, head + with_start : y.shape[1] - with_end]
    between[:, ::2] = torch.lerp(rest[:, :-1], rest[:, 1:], 0.25)
    between[:, 1::2] = torch.lerp(rest[:, :-1], rest[:, 1:], 0.75)
    return y
