"""Decodes chunks as the published v1.1 models do, to compare with results that were made so.

Each chunk is decoded with one latent frame more than it needs. The frames of this latent frame are thrown away and
decoded again with the next chunk. The result differs from decoding at once. In the second chunk, interpolation mixes in
the first chunk's version of the thrown-away frames. So the first frames of the second chunk come out wrong, and through
the layers' memories the frames after them too.
"""

import torch
from torch import Tensor, nn

from vtok.vidtok.decoder import Decoder
from vtok.vidtok.stream import Stream, doubled_parts


class OverlappingStream(Stream):
    """Keeps each layer's past as if the extra latent frame at the end of the chunk did not exist.

    Attributes:
        ahead: Whether the chunk has an extra latent frame.
        rate: Frames per latent frame at the current layer.
    """

    def __init__(self):
        super().__init__(last=False)
        self.ahead, self.rate = False, 1

    def next(self) -> None:
        """Ends the current chunk."""
        super().next()
        self.rate = 1

    def past_of_next(self, x: Tensor, count: int) -> Tensor:
        """Returns the ``count`` frames before the frames of the extra latent frame."""
        end = x.shape[1] - self.ahead * self.rate
        return x[:, end - count : end]

    def doubled(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Doubles the frame rate of (B, T, H, W, C) as the published models do."""
        rate = self.rate
        self.rate, self.repeats = 2 * rate, 2 * self.repeats
        if self.first:
            head, rest = x[:, :1], x[:, 1:]
            self.keep(layer, rest[:, -rate:] if rest.shape[1] else head.expand(-1, rate, -1, -1, -1))
            return torch.cat([head, *doubled_parts(rest, True, True)], dim=1) if rest.shape[1] else head
        x = torch.cat([self.kept[layer], x], dim=1)
        self.keep(layer, x[:, -2 * rate : -rate])
        return torch.cat(doubled_parts(x, True, True), dim=1)[:, 2 * rate :]


def decode_overlapping(decoder: Decoder, z: Tensor, size: int, overlap: bool) -> Tensor:
    """Decodes the first latent frame alone and then ``size`` latent frames at a time.

    Args:
        decoder: The decoder of a v1.1 model.
        z: Latents (B, t, h, w, channels).
        size: Latent frames per chunk.
        overlap: Whether each chunk also sees the first latent frame of the next.

    Returns:
        The frames (B, t f, H, W, 3).
    """
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
