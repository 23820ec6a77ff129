"""The published models' own way of decoding in chunks, for comparing with results that were made so.

A chunk is decoded with one latent frame more than it needs, whose frames are thrown away and decoded again in the next
chunk. It differs from decoding at once (v1.1 only): interpolation in the second chunk mixes in what the first chunk
took the thrown-away frames for; its first frames come out wrong and, through the layers' memories, those behind them.
"""

import torch
from torch import Tensor, nn

from vtok.vidtok.stream import Stream, doubled_parts


class OverlappingStream(Stream):
    """Remembers as if the latent frame ahead had not been there.

    Attributes:
        ahead: whether there is one.
        rate: frames that a latent frame has become at the layer at hand.
    """

    def __init__(self):
        super().__init__(last=False)
        self.ahead, self.rate = False, 1

    def next(self) -> None:
        super().next()
        self.rate = 1

    def past_of_next(self, x: Tensor, count: int) -> Tensor:
        end = x.shape[1] - self.ahead * self.rate
        return x[:, end - count : end]

    def doubled(self, layer: nn.Module, x: Tensor) -> Tensor:
        rate = self.rate
        self.rate, self.repeats = 2 * rate, 2 * self.repeats
        if self.first:
            head, rest = x[:, :1], x[:, 1:]
            self.keep(layer, rest[:, -rate:] if rest.shape[1] else head.expand(-1, rate, -1, -1, -1))
            return torch.cat([head, *doubled_parts(rest, True, True)], dim=1) if rest.shape[1] else head
        x = torch.cat([self.kept[layer], x], dim=1)
        self.keep(layer, x[:, -2 * rate : -rate])
        return torch.cat(doubled_parts(x, True, True), dim=1)[:, 2 * rate :]


def decode_overlapping(decoder: nn.Module, z: Tensor, size: int, overlap: bool) -> Tensor:
    """(B, t, h, w, channels) to (B, t f, H, W, 3): the first latent frame alone, then ``size`` at a time."""
    stream, frames, start = OverlappingStream(), [], 0
    while start < z.shape[1]:
        end = min(start + (size if start else 1), z.shape[1])
        stream.ahead = overlap and end < z.shape[1]
        chunk = decoder(z[:, start : end + stream.ahead], stream)
        if start == 0:
            chunk = torch.cat([chunk[:, :1].expand(-1, stream.repeats - 1, -1, -1, -1), chunk], dim=1)
        frames.append(chunk[:, : chunk.shape[1] - stream.ahead * decoder.config.time_factor])
        stream.next()
        start = end
    return torch.cat(frames, dim=1)
