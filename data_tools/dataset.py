"""The dataset of a trainer: position in the endless sequence → one decoded sample.

The dataset is map-style, so DataLoader workers hold no state. `order.RunSampler` gives the positions. A sample is a
pure function of (seed, position, data). A clip that cannot be read is replaced by a drawn substitute; no other sample
moves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from data_tools.buckets import BucketedOrder, Bucketing
from data_tools.draws import Draws
from data_tools.errors import BadVideo, DataError
from data_tools.order import Order
from data_tools.shards import RawSample, ShardReader
from data_tools.streaming.mixture import Mixture
from data_tools.video.facts import IMAGE
from data_tools.video.views import (
    CENTRE,
    ROUNDING,
    Shape,
    View,
    Views,
    black,
    make_views,
    one_shape,
    stand_in,
    valid_frames,
    window,
)

MAX_ATTEMPTS = 8
KINDS = ("text", "image", "video", "several")
ROWS_AT_ONCE = 1 << 20


@dataclass
class Sample:
    """One decoded sample. Both views show the same window of one clip (see `views.Views`).

    Both views hold the clip's own frames; with buckets the decoder's is padded to the length of the bucket. A view that
    is precomputed in the shard is not decoded: it is None, and `extras` holds the stored data. An image is a clip of
    one frame. A text has a black frame in its place, and a sample without a caption a small black video (see
    `views.stand_in`). So has a conversation about several media, each of which has a window of its own.

    Attributes:
        position: position in the endless sequence.
        key: key of the clip used, which may be a substitute.
        draws: randomness for further choices about this sample.
        frames: uint8 (T, 3, h, w), for the tokeniser.
        frames_valid: number of leading frames inside the clip; later ones repeat the last of them.
        video: uint8 (F, 3, H, W), for the decoder's loss.
        video_valid: as `frames_valid`, for `video`; 0 without a decoder view.
        start: start of the window, seconds.
        caption: one of the clip's captions, drawn; "" if it has questions only.
        captions: all of them.
        question: question of one of the clip's pairs, drawn; None if it has none.
        answer: answer to `question`.
        extras: other members of the sample, by ending.
        replaced: (key, reason) of each clip that could not be used, in order.
        kind: one of `KINDS`.
        turns: further (question, answer) pairs, which go on from the first one: all pairs of a text and of a
            conversation about several media, and of a clip if the dataset takes all turns.
        others: the frames of each further medium, uint8 (its own length, 3, h, w).
        places: of several media: the (turn, number of characters of its question before it) of each.
        source: the number of its dataset in a mixture.
    """

    position: int
    key: str
    draws: Draws
    frames: torch.Tensor | None
    frames_valid: int
    video: torch.Tensor | None
    video_valid: int
    start: float
    caption: str
    question: str | None
    answer: str | None
    extras: dict[str, bytes]
    replaced: tuple[tuple[str, str], ...]
    kind: str = "video"
    turns: tuple[tuple[str, str], ...] = ()
    others: tuple[torch.Tensor, ...] = ()
    places: tuple[tuple[int, int], ...] = ()
    captions: tuple[str, ...] = ()
    source: int = 0

    @property
    def frame_counts(self) -> list[int]:
        """The number of valid frames of each medium."""
        return [self.frames_valid, *map(len, self.others)]


class ClipDataset(Dataset):
    """Samples of a dataset, or of a mixture of datasets, by position.

    In training, position p ≥ 0 is place p of `order`. Otherwise it is row p mod N (the last batch may reach past the
    end), and the window is at the clip's centre.

    Args:
        reader: the shards.
        seed: the run's seed.
        seconds: length of the window.
        tokeniser_view: the view `frames`.
        decoder_view: the view `video`; None for none.
        fit: "crop" or "pad" (see `views.fit_box`).
        decoder: "pyav", "torchcodec" or "decord".
        training: whether positions follow `order`.
        draw_window: in training, whether the window is drawn; else it is at the clip's centre.
        stored: views, of "frames" and "video", that are precomputed in the shards and not decoded.
        order: the order of rows; `reader.order(seed)` if omitted.
        all_turns: whether a clip's question-answer pairs are one conversation; else one of them is drawn.
        silent: the datasets of a mixture whose samples have a black video, as if they had no caption. With buckets,
            which have one shape each, they keep theirs.
        padded: whether the views of a short clip have full length. With buckets the decoder's has it in any case.
        bucketing: sorts the samples into buckets, each with its own views; None for one shape.
        shapes: the views of each bucket, those of samples without a video last. The order tells a position's bucket.
        transform: applied to each Sample in the worker.

    Attributes:
        crashes: for a position at which processes have died: how many of its clips, the first ones, count as bad.
    """

    def __init__(
        self,
        reader: ShardReader | Mixture,
        *,
        seed: int,
        seconds: float,
        tokeniser_view: View,
        decoder_view: View | None = None,
        fit: str = "crop",
        decoder: str = "pyav",
        training: bool = True,
        draw_window: bool = True,
        stored: frozenset[str] = frozenset(),
        order: Order | None = None,
        all_turns: bool = False,
        silent: frozenset[int] = frozenset(),
        padded: bool = False,
        bucketing: Bucketing | None = None,
        shapes: Sequence[Shape] = (),
        transform: Callable[[Sample], Any] | None = None,
    ):
        self.reader = reader
        self.seed = seed
        self.seconds = seconds
        self.tokeniser_view = tokeniser_view
        self.decoder_view = decoder_view
        self.fit = fit
        self.decoder = decoder
        self.training = training
        self.draw_window = draw_window
        self.stored = stored
        self.all_turns = all_turns
        self.silent = silent
        self.padded = padded
        self.bucketing = bucketing
        self.shapes = list(shapes) or [one_shape(seconds, tokeniser_view, decoder_view)]
        self.transform = transform
        self.order = order or reader.order(seed)
        self.crashes: dict[int, int] = {}

    def __len__(self) -> int:
        """The number of samples N. Positions may exceed it."""
        return len(self.reader)

    def __getitem__(self, position: int) -> Any:
        """The sample at `position`, after `transform`.

        Raises:
            DataError: neither the clip nor any of its substitutes can be read.
        """
        sample = self._sample(position)
        return sample if self.transform is None else self.transform(sample)

    def _sample(self, position: int) -> Sample:
        draws = Draws(self.seed, position)
        replaced: list[tuple[str, str]] = []
        bucket = self._bucket(position)
        for attempt in range(MAX_ATTEMPTS):
            row = draws.integer(f"substitute-{attempt}", len(self)) if attempt else self.row(position)
            if attempt < self.crashes.get(position, 0):
                replaced.append((self.reader.key(row), "decoder_crash"))
                continue
            try:
                return self._decoded(row, bucket, draws, tuple(replaced))
            except BadVideo as problem:
                replaced.append((self.reader.key(row), problem.reason))
        tried = ", ".join(f"{key} ({reason})" for key, reason in replaced)
        raise DataError(f"position {position}: none of {MAX_ATTEMPTS} clips can be read: {tried}: check the shards")

    def row(self, position: int) -> int:
        """The row of a position, before any substitution."""
        return self.order.row(position) if self.training else position % len(self)

    def _bucket(self, position: int) -> int:
        """The number of a position's bucket; 0 if there is one shape."""
        if self.bucketing is None:
            return 0
        if isinstance(self.order, BucketedOrder) and self.training:
            return self.order.bucket(position)
        return self.bucketing.nearest(self.row(position))

    def _decoded(self, row: int, bucket: int, draws: Draws, replaced: tuple[tuple[str, str], ...]) -> Sample:
        raw, shape = self.reader.read(row), self.shapes[bucket]
        kind, source = kind_of(raw), self.reader.source(row)
        first, *others = raw.meta["media"] if raw.others else [raw.meta]
        duration = first["facts"]["duration"]
        start = self._start(shape, duration, draws, "window")
        # A substitute takes the form of the sample whose place it takes: none of a text has a video.
        videoless = self.bucketing is not None and bucket == len(self.shapes) - 1
        captions = [""] if videoless else captions_of(raw.meta)
        silent = self.bucketing is None and source in self.silent
        views = self._views(raw, first["facts"], shape, start, kind, captioned=any(captions) and not silent)
        pairs = raw.meta.get("conversations") or [(raw.meta.get("question"), raw.meta.get("answer"))]
        whole = self.all_turns or kind in ("text", "several")
        question, answer = pairs[0 if whole else draws.integer("conversation", len(pairs))]
        if answer is None:  # a question alone is not asked
            question = None
        return Sample(
            position=draws.position,
            key=raw.key,
            draws=draws,
            frames=views.frames,
            frames_valid=views.frames_valid or valid_frames(shape.tokeniser, start, duration),
            video=views.video,
            video_valid=views.video_valid or valid_frames(shape.decoder, start, duration),
            start=start,
            caption=captions[draws.integer("caption", len(captions))],
            question=question,
            answer=answer,
            extras=raw.extras,
            replaced=replaced,
            kind=kind,
            turns=tuple((asked, told) for asked, told in pairs[1:]) if whole else (),
            others=tuple(
                self._frames(body, medium["facts"], shape, draws, f"window of {medium['member']}")
                for body, medium in zip(raw.others, others)
            ),
            captions=tuple(captions),
            source=source,
            places=tuple((medium["turn"], medium["at"]) for medium in (first, *others)) if others else (),
        )

    def _start(self, shape: Shape, duration: float, draws: Draws, purpose: str) -> float:
        """The start of the window in a clip, seconds."""
        drawn = self.training and self.draw_window
        return window(duration, shape.seconds, draws.uniform(purpose) if drawn else CENTRE)

    def _frames(self, medium: bytes, facts: dict, shape: Shape, draws: Draws, purpose: str) -> torch.Tensor:
        """The tokeniser's view of a further medium, valid frames alone. Raises BadVideo."""
        duration, entry = facts["duration"], facts["entry"]
        start = self._start(shape, duration, draws, purpose)
        how = self.fit, self.decoder, ("video",), entry, ()
        frames = make_views(medium, duration, shape.tokeniser, shape.decoder, start, *how).frames
        assert frames is not None  # it is not skipped
        return frames

    def _views(self, raw: RawSample, facts: dict, shape: Shape, start: float, kind: str, captioned: bool) -> Views:
        """The views of a sample's first medium, without those that are stored. Raises BadVideo.

        Args:
            raw: the sample.
            facts: of its first medium.
            shape: its views.
            start: of the window, seconds.
            kind: of the sample.
            captioned: whether it has a loss of generation.
        """
        if kind == "text":
            views = stand_in(shape)
            return Views(
                None if "frames" in self.stored else views.frames,
                views.frames_valid,
                None if "video" in self.stored else views.video,
                views.video_valid,
            )
        drawn = None if captioned or "video" in self.stored else shape.stand_in
        video = black(drawn) if drawn else None
        views = make_views(
            raw.video,
            facts["duration"],
            shape.tokeniser,
            shape.decoder,
            start,
            self.fit,
            self.decoder,
            self.stored if video is None else self.stored | {"video"},
            facts.get("entry"),
            padded=("frames", "video") if self.padded else ("video",) if self.bucketing else (),
        )
        return views if video is None else replace(views, video=video, video_valid=1)

    @cached_property
    def alike(self) -> bool:
        """Whether every micro-batch has videos of one shape: in training with buckets, or if all samples are alike.

        Samples are alike if their views have full length and all have a caption. All this follows from the data and
        the settings, so it is the same on every rank.
        """
        if self.bucketing is not None:
            return self.training
        views = [view for view in (self.tokeniser_view, self.decoder_view) if view]
        longest = max((view.num_frames - 1) / view.fps for view in views)
        if self.silent or longest > self.seconds + ROUNDING:  # a window at the end of a clip may reach past it
            return False
        for first in range(0, len(self), ROWS_AT_ONCE):
            facts = self.reader.facts(np.arange(first, min(first + ROWS_AT_ONCE, len(self))))
            if facts["duration"].min() < longest or facts["frames"].min() < 2 or not facts["words"].all():
                return False
        return True


def kind_of(raw: RawSample) -> str:
    """Returns the kind of a sample, one of `KINDS`."""
    text, image, video, several = KINDS
    if raw.others:
        return several
    return text if not raw.extension else image if raw.meta["facts"].get("entry") == IMAGE else video


def captions_of(meta: dict[str, Any]) -> list[str]:
    """Returns a clip's captions, from its `meta`; [""] if it has questions only."""
    return meta.get("captions") or [meta["caption"]]
