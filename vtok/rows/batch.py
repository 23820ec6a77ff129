"""What the model is given: one micro-batch."""

from typing import NamedTuple

from torch import Tensor

from vtok.rows.text import RowText
from vtok.tokeniser import VisualFeatures
from vtok.video_decoder import Posterior


class Batch(NamedTuple):
    """B samples of one shape.

    Attributes:
        frames: (B, T, 3, h, w) ``uint8``, the tokeniser's view; or already their frozen features.
        frame_counts: real frames of each clip; the rest repeats the last one.
        video: (B, F, 3, H, W) ``uint8``, F = 4k + 1, the decoder's view; or already its latents' posterior; ``None``
            where there is no decoder.
        video_counts: likewise, each 4k + 1.
        texts: token ids of each sample's rows.
        decoder_seeds: each sample's seed for sigma and the decoder's noise.
        head_seeds: each sample's seed for the draws of the visual head.
        keys: names of the samples, for digests and messages.
    """

    frames: Tensor | VisualFeatures
    frame_counts: list[int]
    video: Tensor | Posterior | None
    video_counts: list[int]
    texts: list[RowText]
    decoder_seeds: list[int]
    head_seeds: list[int]
    keys: list[str]

    def to(self, device) -> "Batch":
        """The same batch with its tensors on ``device``."""
        return self._replace(frames=moved(self.frames, device), video=moved(self.video, device))


def moved(value, device):
    """A tensor, or a named tuple with tensors in it, with the tensors on ``device``."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    return type(value)(*(moved(part, device) for part in value)) if isinstance(value, tuple) else value
