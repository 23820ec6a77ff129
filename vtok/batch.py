"""What the model is given: one micro-batch."""

from typing import NamedTuple

from torch import Tensor

from vtok.text import RowText


class Batch(NamedTuple):
    """B samples of one shape.

    Attributes:
        frames: (B, T, 3, h, w) ``uint8``, the tokeniser's view.
        frame_counts: real frames of each clip; the rest repeats the last one.
        video: (B, F, 3, H, W) ``uint8``, F = 4k + 1, the decoder's view.
        video_counts: likewise, each 4k + 1.
        texts: token ids of each sample's rows.
        decoder_seeds: each sample's seed for sigma and the decoder's noise.
        input_seeds: each sample's seed for the noise on its visual inputs.
        keys: names of the samples, for digests and messages.
        positions: their places in the run.
    """

    frames: Tensor
    frame_counts: list[int]
    video: Tensor
    video_counts: list[int]
    texts: list[RowText]
    decoder_seeds: list[int]
    input_seeds: list[int]
    keys: list[str]
    positions: list[int]

    def to(self, device) -> "Batch":
        """The same batch with its tensors on ``device``."""
        return self._replace(
            frames=self.frames.to(device, non_blocking=True), video=self.video.to(device, non_blocking=True)
        )
