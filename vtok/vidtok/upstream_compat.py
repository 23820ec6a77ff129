"""Decodes chunks as the published v1.1 models do, to compare with results that were made so.

Each chunk is decoded with one latent frame more than it needs. The frames of this latent frame are thrown away and
decoded again with the next chunk. The result differs from decoding at once. In the second chunk, interpolation mixes in
the first chunk's version of the thrown-away frames. So the first frames of the second chunk come out wrong, and through
the layers' memories the frames after them too.
"""

import torch
from torch import Tensor

from vtok.vidtok.decoder import Decoder
from vtok.vidtok.stream import Layer, Stream, interpolated


class OverlappingStream(Stream):
    """Keeps each layer's past as if the extra latent frame at the end of the chunk did not exist.

    Attributes:
        has_extra: Whether the chunk has an extra latent frame.
        rate: Frames per latent frame at the current layer.
    """

    def __init__(self):
        super().__init__(last=False)
        self.has_extra, self.rate = False, 1

    def next(self) -> None:
        """Ends the current chunk."""
        super().next()
        self.rate = 1

    @property
    def ahead(self) -> int:
        """Frames of the extra latent frame at the end of the current chunk."""
        return self.has_extra * self.rate

    def double_rate(self) -> None:
        """Says that the layers from here on have twice the frame rate."""
        super().double_rate()
        self.rate *= 2

    def doubled(self, layer: Layer, x: Tensor) -> Tensor:
        """Doubles (B, T, H, W, C), to the frame rate that the stream has now, as the published models do."""
        rate = self.rate // 2
        if self.first:
            head, rest = x[:, :1], x[:, 1:]
            self.keep(layer, rest[:, -rate:] if rest.shape[1] else head.expand(-1, rate, -1, -1, -1))
            return interpolated(x, 1, True, True)
        x = torch.cat([self.kept[layer], x], dim=1)
        self.keep(layer, x[:, -2 * rate : -rate])
        return interpolated(x, 0, True, True)[:, 2 * rate :]


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
        stream.has_extra = overlap and end < z.shape[1]
        chunk = decoder(z[:, start : end + stream.has_extra], stream)
        if start == 0:
            chunk = torch.cat([chunk[:, :1].expand(-1, stream.repeats - 1, -1, -1, -1), chunk], dim=1)
        frames.append(chunk[:, : chunk.shape[1] - stream.has_extra * decoder.config.time_factor])
        stream.next()
        start = end
    return torch.cat(frames, dim=1)
