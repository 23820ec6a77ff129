"""The model's input: one micro-batch."""

from typing import NamedTuple

import torch
from torch import Tensor

from vtok.rows.text import RowText
from vtok.tokeniser import VisualFeatures
from vtok.video_decoder import Posterior


class Batch(NamedTuple):
    """B samples of one shape.

    Attributes:
        frames: (B, T, 3, h, w) ``uint8``, the tokeniser's view; or its stored frozen features.
        frame_counts: Real frames of each clip. The rest repeats the last one.
        video: (B, F, 3, H, W) ``uint8``, F = 4k + 1, the decoder's view; or the stored posterior of its latents.
            ``None`` if there is no decoder.
        video_counts: Real frames of each video, 4k + 1 each.
        texts: Token ids of each sample's rows.
        decoder_seeds: Each sample's seed for sigma and the decoder's noise.
        head_seeds: Each sample's seed for the noise of the visual head.
        keys: Names of the samples, for digests and messages.
        captions: Each sample's stored caption, as the decoder's own text encoder encodes it. ``None`` if it is to run.
    """

    frames: Tensor | VisualFeatures
    frame_counts: list[int]
    video: Tensor | Posterior | None
    video_counts: list[int]
    texts: list[RowText]
    decoder_seeds: list[int]
    head_seeds: list[int]
    keys: list[str]
    captions: list[Tensor] | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """Returns the batch with its tensors on ``device``."""
        video = None if self.video is None else self.video.to(device, non_blocking=True)
        captions = self.captions and [caption.to(device, non_blocking=True) for caption in self.captions]
        return self._replace(frames=self.frames.to(device, non_blocking=True), video=video, captions=captions)
