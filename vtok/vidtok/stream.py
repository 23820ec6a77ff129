"""The frames that a layer over time sees before its input, for whole clips and for chunks of a longer video.

A causal layer sees past frames. Before the first chunk there are none: v1.0 pads with zeros, v1.1 with copies of the
first frame. Before a later chunk the past is the layer's own last inputs, which a :class:`Stream` keeps.

In v1.1 copies of the first frame stay identical in every layer, because each copy sees only copies. So one frame is
computed for all of them, and the stream counts how many frames it stands for.
"""

import torch
from torch import Tensor, nn


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
        self.kept: dict[nn.Module, Tensor] = {}

    def next(self) -> None:
        """Ends the current chunk."""
        self.first, self.repeats = False, 1
        if self.last:
            self.kept.clear()

    def keep(self, layer: nn.Module, frames: Tensor) -> None:
        """Stores the past that a layer will see before the next chunk.

        The frames are copied, because a view would keep the whole chunk in memory.
        """
        if not self.last:
            self.kept[layer] = frames.clone()

    def behind_past(self, layer: nn.Module, x: Tensor, count: int, replicate: bool) -> Tensor:
        """Puts the past of a layer before its input, and keeps the past of the next chunk.

        Args:
            layer: The layer.
            x: Its input, (B, T, H, W, C).
            count: Past frames that it sees.
            replicate: See :class:`vtok.vidtok.layers.Causal`.

        Returns:
            The frames (B, count + T, H, W, C).
        """
        if not self.first:
            past = self.kept[layer]
        elif replicate:
            past = x[:, :1].expand(-1, count, -1, -1, -1)
        else:
            past = x.new_zeros(len(x), count, *x.shape[2:])
        x = torch.cat([past, x], dim=1)
        self.keep(layer, self.past_of_next(x, count))
        return x

    def past_of_next(self, x: Tensor, count: int) -> Tensor:
        """Returns the ``count`` frames of ``x`` that precede the next chunk."""
        return x[:, x.shape[1] - count :]

    def ready_to_halve(self, x: Tensor) -> Tensor:
        """Prepares the input (B, T, H, W, C) of a layer that outputs every second frame.

        The first frame stands for r identical frames. The first r // 2 outputs see only these and are identical, so one
        of them is computed. It and the outputs after it need two of the identical frames if r is even, three if it is
        odd. This method inserts the missing copies and halves ``repeats``.
        """
        copies = 0 if self.repeats == 1 else 1 + self.repeats % 2
        self.repeats = max(1, self.repeats // 2)
        return torch.cat([x[:, :1].expand(-1, copies, -1, -1, -1), x], dim=1) if copies else x

    def doubled(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Doubles the frame rate of (B, T, H, W, C) by linear interpolation.

        The first frame of a video is not interpolated. The second half of any other frame mixes it with the next frame,
        so at the end of a chunk it comes with the next chunk; at the end of the video it is a copy.

        Args:
            layer: The layer that asks; its last frame is kept for the next chunk.
            x: Its input.
        """
        self.repeats *= 2
        head, rest = x.split([1, x.shape[1] - 1], dim=1) if self.first else (x[:, :0], x)
        before = rest[:, :0] if self.first else self.kept[layer]
        begins = before.shape[1] == 0
        rest = torch.cat([before, rest], dim=1)
        self.keep(layer, rest[:, -1:])
        return torch.cat([head, *doubled_parts(rest, begins, self.last)], dim=1)


def doubled_parts(x: Tensor, with_start: bool, with_end: bool) -> tuple[Tensor, ...]:
    """Interpolates (B, T, ...) linearly to twice the frame rate.

    Returns:
        The first frame if ``with_start``, the 2 (T - 1) frames after it, and the last frame if ``with_end``; a part
        that is not wanted has no frames.
    """
    earlier, later = x[:, :-1], x[:, 1:]
    between = torch.stack([torch.lerp(earlier, later, 0.25), torch.lerp(earlier, later, 0.75)], dim=2).flatten(1, 2)
    return (x[:, :with_start], between, x[:, x.shape[1] - with_end :])
