"""The dataset a trainer sees: position in the endless sequence → one decoded sample.

Map-style, so that a DataLoader's workers hold no state: the positions come from `order.RunSampler`, and a sample is
a pure function of (seed, position, data). A clip that cannot be read is replaced by a substitute that is drawn the
same way: all other samples of the run stay where they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from data_tools.draws import Draws
from data_tools.errors import BadVideo, DataError
from data_tools.shards import ShardReader
from data_tools.streaming.mixture import Mixture
from data_tools.streaming.order import Order
from data_tools.views import CENTRE, View, make_views, view_times, window

MAX_ATTEMPTS = 8


@dataclass
class Sample:
    """One decoded sample. The two views show the same window of one clip (see `views.Views`).

    A view that is stored with the clip is not decoded: it is `None`, and what is stored lies in `extras`.
    """

    position: int
    key: str  # of the clip really used
    draws: Draws  # for whatever is still to be drawn for this sample
    frames: torch.Tensor | None  # uint8 (T, 3, h, w), for the tokeniser
    frames_valid: int
    video: torch.Tensor | None  # uint8 (F, 3, H, W), for the decoder's loss
    video_valid: int
    start: float  # of the window, seconds
    caption: str
    question: str | None
    answer: str | None
    extras: dict[str, bytes]  # what else the shard holds of the clip, by ending
    replaced: tuple[tuple[str, str], ...]  # (key, reason) of each clip that could not be used, in order


class ClipDataset(Dataset):
    """Samples of a dataset, or of a mixture of several, by position.

    In training, position p is place p of `order`, any p ≥ 0, and the window of `seconds` is drawn, or at the clip's
    centre without `draw_window`; `order` is the reader's own for this seed, if none is given. Otherwise p is row p, and
    row p mod N where a last batch reaches past the end, with the window at the centre. `stored` names the views, of
    "frames" and "video", that lie in the shards and need no decoding.
    `transform` turns a Sample into what the batch is made of, in the worker.
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
        self.transform = transform
        self.order = order or reader.order(seed)

    def __len__(self) -> int:
        """The number of samples N; positions may go past it."""
        return len(self.reader)

    def __getitem__(self, position: int) -> Any:
        """Raises DataError where the clip and all its substitutes are bad."""
        sample = self._sample(position)
        return sample if self.transform is None else self.transform(sample)

    def _sample(self, position: int) -> Sample:
        draws, replaced = Draws(self.seed, position), []
        for attempt in range(MAX_ATTEMPTS):
            row = draws.integer(f"substitute-{attempt}", len(self)) if attempt else self.row(position)
            try:
                return self._decoded(row, draws, tuple(replaced))
            except BadVideo as problem:
                replaced.append((self.reader.key(row), problem.reason))
        tried = ", ".join(f"{key} ({reason})" for key, reason in replaced)
        raise DataError(f"position {position}: none of {MAX_ATTEMPTS} clips can be read: {tried}: check the shards")

    def row(self, position: int) -> int:
        """The row meant for a position; another's clip takes its place where that one's cannot be read."""
        return self.order.row(position) if self.training else position % len(self)

    def _decoded(self, row: int, draws: Draws, replaced: tuple[tuple[str, str], ...]) -> Sample:
        raw = self.reader.read(row)
        duration = raw.meta["facts"]["duration"]
        drawn = self.training and self.draw_window
        start = window(duration, self.seconds, draws.uniform("window") if drawn else CENTRE)
        views = make_views(
            raw.video, duration, self.tokeniser_view, self.decoder_view, start, self.fit, self.decoder, self.stored
        )
        captions = raw.meta.get("captions") or [raw.meta["caption"]]
        pairs = raw.meta.get("conversations") or [(raw.meta.get("question"), raw.meta.get("answer"))]
        question, answer = pairs[draws.integer("conversation", len(pairs))]
        return Sample(
            position=draws.position,
            key=raw.key,
            draws=draws,
            frames=views.frames,
            frames_valid=view_times(self.tokeniser_view, start, duration)[1],
            video=views.video,
            video_valid=view_times(self.decoder_view, start, duration)[1] if self.decoder_view else 0,
            start=start,
            caption=captions[draws.integer("caption", len(captions))],
            question=question,
            answer=answer,
            extras=raw.extras,
            replaced=replaced,
        )
