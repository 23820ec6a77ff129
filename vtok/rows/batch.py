"""The model's input: one micro-batch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vtok.devices import indices_on_device
from vtok.rows.text import RowText
from vtok.tokeniser import VisualFeatures
from vtok.video_decoder import Posterior


class Batch(NamedTuple):
    """B samples: clips, images (clips of one frame), texts, and conversations about several media.

    Every rank runs the same modules in every micro-step, whatever its samples are. So a text has a black frame, whose
    tokens stand in no row, and a sample without a caption a small black video, whose loss has weight zero.

    Attributes:
        frames: (media, T, 3, h, w) ``uint8``, the tokeniser's view of the media of all samples, one after the other; or
            their stored frozen features.
        frame_counts: Real frames of each medium. The rest repeats the last one.
        video: (B, F, 3, H, W) ``uint8``, F = 4k + 1, the decoder's view; or the stored posterior of its latents. A list
            of B of these, each of one clip: the decoder then runs clip by clip, and the transformer on the real frames
            alone. All ranks have the same form. ``None`` if there is no decoder.
        video_counts: Real frames of each video, 4k + 1 each.
        texts: Token ids of each sample's rows.
        decoder_seeds: Each sample's seed for sigma and the decoder's noise.
        head_seeds: Each sample's seed for the noise of the visual head.
        keys: Names of the samples, for digests and messages.
        captions: Each sample's stored caption, as the decoder's own text encoder encodes it. ``None`` if it is to run.
        vectors: (media, T - 1, ...) motion vectors of the frames, if the strategy reads them
            (``Tokeniser.vectors_of``). Zero behind a medium's own frames.
        media_counts: The number of media of each sample. ``None``: one each.
    """

    frames: Tensor | VisualFeatures
    frame_counts: list[int]
    video: Tensor | Posterior | list[Tensor | Posterior] | None
    video_counts: list[int]
    texts: list[RowText]
    decoder_seeds: list[int]
    head_seeds: list[int]
    keys: list[str]
    captions: list[Tensor] | None = None
    vectors: Tensor | None = None
    media_counts: list[int] | None = None

    @property
    def groups(self) -> list[Tensor | Posterior]:
        """The videos as the decoder takes them: all B at once, or clip by clip."""
        if isinstance(self.video, list):
            return self.video
        return [] if self.video is None else [self.video]

    @property
    def decoded(self) -> tuple["Batch", list[int]]:
        """What the decoder reads of the samples that it runs for, and their places.

        These are the samples that count in L_dec, or the first one if there is none; all if the videos are a list.
        """
        every = list(range(len(self.texts)))
        places = [place for place in every if self.texts[place].decodes] or every[:1]
        if self.video is None or isinstance(self.video, list) or places == every:
            return self, every

        def chosen(values: Sequence[Any]) -> list[Any]:
            return [values[place] for place in places]

        return self._replace(
            video=videos_at(self.video, places), video_counts=chosen(self.video_counts), texts=chosen(self.texts),
            decoder_seeds=chosen(self.decoder_seeds), captions=self.captions and chosen(self.captions),
        ), places  # fmt: skip

    @property
    def shown(self) -> list[bool]:
        """Whether each medium stands in a row. A text's black frame does not."""
        counts = self.media_counts or [1] * len(self.texts)
        return [medium in text.media for text, count in zip(self.texts, counts) for medium in range(count)]

    def to(self, device: torch.device | str) -> "Batch":
        """Returns the batch with its tensors on ``device``."""
        moved = [video.to(device, non_blocking=True) for video in self.groups]
        video = moved if isinstance(self.video, list) else next(iter(moved), None)
        captions = self.captions and [caption.to(device, non_blocking=True) for caption in self.captions]
        vectors = None if self.vectors is None else self.vectors.to(device, non_blocking=True)
        frames = self.frames.to(device, non_blocking=True)
        return self._replace(frames=frames, video=video, captions=captions, vectors=vectors)


def videos_at(video: Tensor | Posterior, places: list[int]) -> Tensor | Posterior:
    """Returns some of B videos."""
    if isinstance(video, Tensor):
        return video.index_select(0, *indices_on_device(video.device, places))
    (index,) = indices_on_device(video.mean.device, places)
    return Posterior(*(x.index_select(0, index) for x in video))
