"""Time: what a layer sees beyond the frames it is given, for whole clips and for chunks of endless ones.

A causal layer looks at past frames. Before a clip's first chunk there are none: v1.0 takes zeros, v1.1 the first frame.
Before a later chunk they are the layer's own last inputs, which a :class:`Stream` holds, and nothing else.

In v1.1 a first frame that is repeated stays so through every layer, as each sees only copies of it. So one frame is
computed in place of them all, and the stream knows how many it stands for.
"""

import torch
from torch import Tensor, nn


class Stream:
    """One pass over a video, in one or more chunks, through an encoder or a decoder.

    Attributes:
        first, last: whether the chunk at hand begins the video, and whether it ends it.
        repeats: identical frames that the first frame of a first chunk stands for, at the rate of the layer at hand.
        kept: each temporal layer's last input frames, (B, n, H, W, C).
    """

    def __init__(self, repeats: int = 1, last: bool = True):
        self.first, self.last, self.repeats = True, last, repeats
        self.kept: dict[nn.Module, Tensor] = {}

    def next(self) -> None:
        """The chunk at hand is done."""
        self.first, self.repeats = False, 1
        if self.last:
            self.kept.clear()

    def keep(self, layer: nn.Module, frames: Tensor) -> None:
        """Remember the past of the next chunk; a copy, for a view would hold on to the whole chunk."""
        if not self.last:
            self.kept[layer] = frames.clone()

    def behind_past(self, layer: nn.Module, x: Tensor, count: int, replicate: bool) -> Tensor:
        """``x`` (B, T, H, W, C) behind the ``count`` frames before it; ``replicate`` as in :class:`layers.Causal`."""
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
        return x[:, x.shape[1] - count :]

    def ready_to_halve(self, x: Tensor) -> Tensor:
        """``x`` for a layer that takes every second frame, with as many copies of the first as it has to tell apart.

        Of r identical frames, the first r // 2 results see nothing else and are identical; one is enough of them, and
        of the frames behind them: two if r is even, three if it is odd.
        """
        copies = 0 if self.repeats == 1 else 1 + self.repeats % 2
        self.repeats = max(1, self.repeats // 2)
        return torch.cat([x[:, :1].expand(-1, copies, -1, -1, -1), x], dim=1) if copies else x

    def doubled(self, layer: nn.Module, x: Tensor) -> Tensor:
        """``x`` at twice the rate, by linear interpolation; a clip's first frame stays itself and mixes with no other.

        The second half of a frame mixes it with the next one. Unless the video ends, it comes with the next chunk.
        """
        self.repeats *= 2
        head, rest = x.split([1, x.shape[1] - 1], dim=1) if self.first else (x[:, :0], x)
        before = rest[:, :0] if self.first else self.kept[layer]
        begins = before.shape[1] == 0
        rest = torch.cat([before, rest], dim=1)
        self.keep(layer, rest[:, -1:])
        return torch.cat([head, *doubled_parts(rest, begins, self.last)], dim=1)


def doubled_parts(x: Tensor, with_start: bool, with_end: bool) -> tuple[Tensor, ...]:
    """Linear interpolation of (B, T, ...) to twice the rate: its first frame, the 2 (T - 1) after it, and its last."""
    earlier, later = x[:, :-1], x[:, 1:]
    between = torch.stack([torch.lerp(earlier, later, 0.25), torch.lerp(earlier, later, 0.75)], dim=2).flatten(1, 2)
    return (x[:, :with_start], between, x[:, x.shape[1] - with_end :])
