"""Answers questions about video files."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from data_tools.errors import DataError
from data_tools.shards import atomic_write
from data_tools.video.decode import validate
from data_tools.video.views import CENTRE, View, make_views, tokeniser_view, window
from pipelines.cli.config_files import plain
from pipelines.cli.errors import one_line
from pipelines.cli.parsing import load_config
from pipelines.config import RunConfig
from pipelines.engine import distributed
from pipelines.inference.load import Run, load_run, load_untrained, weights_of
from pipelines.inference.shares import NOTE, Outputs, own_share, read_table
from pipelines.views import views_of
from vtok.config import ConfigError, require
from vtok.framework import VTokFramework
from vtok.tokeniser import VisualFeatures
from vtok.understanding import understand, understand_several


def duration_of(video: Path) -> float:
    """Returns the length of a video file in seconds.

    Raises:
        DataError: The file does not exist or cannot be read.
    """
    if not video.is_file():
        raise DataError(f"no such video: {video}")
    return validate(video).duration


SLACK = 1.1  # a video may be longer than a sample by this factor; the rest is left out


class Look(NamedTuple):
    """The part of a video that the model sees, and how.

    Attributes:
        start: Where it begins, in seconds.
        end: Where it ends, in seconds. ``None`` is the end of the video.
        key_frame_every: Seconds between key frames. By default a part that is longer than the run's samples has one as
            often as these are long, so that no position is used that was not trained.
        max_frames: Frames that the model sees at most. Of a longer part it sees evenly spaced ones, its ends included,
            as if they followed at the configuration's rate.
    """

    start: float = 0.0
    end: float | None = None
    key_frame_every: float | None = None
    max_frames: int | None = None


class Understanding:
    """Answers questions about video files. The model sees the same views of them as in training.

    Args:
        config: Configuration of the run.
        framework: The model.
    """

    def __init__(self, config: RunConfig, framework: VTokFramework):
        self.config = config
        self.framework = framework
        self.views = views_of(config, framework.tokeniser.feature_extractor.image_size)

    def answer(self, video: Path, question: str, max_new_tokens: int = 128, look: Look = Look()) -> str:
        """Answers a question about a video.

        Args:
            video: Path of the video.
            question: The question.
            max_new_tokens: Longest answer, in tokens.
            look: What the model sees of the video; by default all.

        Raises:
            ConfigError: The video has no such part.
            DataError: The video cannot be read.
        """
        frames, every = self.seen(video, look)
        return understand(self.framework, frames, question, max_new_tokens, key_frame_every=every)

    def answer_about(self, media: Sequence[Path], question: str, max_new_tokens: int = 128) -> str:
        """Answers a question about several videos and images. Of each the model sees the window at its centre.

        Raises:
            DataError: One of them cannot be read.
        """
        return understand_several(
            self.framework, [self.centred(path) for path in media], question, max_new_tokens=max_new_tokens
        )

    def seen(self, video: Path, look: Look = Look()) -> tuple[Tensor, float | None]:
        """Returns the frames that the model sees, (T, 3, h, w) ``uint8``, and the seconds between their key frames.

        With one key frame the seconds are ``None``. Says so if a long video gets several. Errors as in :meth:`answer`.
        """
        duration, trained = duration_of(video), self.config.data.seconds
        end = duration if look.end is None else min(look.end, duration)
        inside = 0 <= look.start < end or look.start == end == duration == 0  # an image lasts no time
        require(inside, f"{video} lasts {duration:.2f} s: nothing of it lies between --start and --end")
        sampled, decoder = self.views
        rate = sampled.fps if look.max_frames is None else thinned(sampled.fps, end - look.start, look.max_frames)
        length, every = (end - look.start) * rate / sampled.fps, look.key_frame_every  # as long as the frames appear
        if length < SLACK * trained:
            length = min(length, trained)
        elif every is None:
            every = trained
            print(f"{video}: {length:.1f} s, with a key frame every {every:g} s as in training", file=sys.stderr)
        elif every > trained:
            print(f"{video}: key frames are {every:g} s apart, in training {trained:g} s at most", file=sys.stderr)
        view = tokeniser_view(length * sampled.fps / rate, rate, sampled.height, sampled.width)
        return self.frames_at(video, duration, view, decoder, look.start), every

    def features_of(self, video: Path) -> VisualFeatures:
        """Returns the frozen features of the centred window that training sees; errors as in :meth:`answer`."""
        return self.framework.tokeniser.features(self.centred(video)[None])

    def centred(self, video: Path) -> Tensor:
        """Returns the frames of that window, (T, 3, h, w) ``uint8``; errors as in :meth:`answer`."""
        duration = duration_of(video)
        start = window(duration, self.config.data.seconds, CENTRE)
        return self.frames_at(video, duration, *self.views, start)

    def frames_at(self, video: Path, duration: float, sampled: View, decoder: View | None, start: float) -> Tensor:
        """Returns the frames of a view from ``start`` on, (T, 3, h, w) ``uint8``, on this rank's device."""
        data = self.config.data
        views = make_views(video, duration, sampled, decoder, start, data.fit, data.decoder, skip=("video",))
        return views.frames[: views.frames_valid].to(distributed.device())


def thinned(fps: float, seconds: float, max_frames: int) -> float:
    """Returns the frames per second, at most ``fps``, at which so many seconds have ``max_frames`` frames (2 or more).

    >>> thinned(6, 5, 1000)
    6
    >>> thinned(6, 60, 31)
    0.5
    >>> thinned(6, 0, 31)
    6
    """
    return min(fps, (max_frames - 1) / seconds) if seconds else fps


def answer_question(a: argparse.Namespace) -> None:
    """Runs the command ``understand.py``: prints one answer, or writes this rank's answers about many videos.

    Args:
        a: The arguments that ``understand.py`` parsed.

    Raises:
        ConfigError: The checkpoint or the configuration is wrong.
        DataError: The video or the table cannot be read.
    """
    if a.videos:
        answer_all(a)
        return
    options = (a.max_new_tokens, Look(a.start, a.end, a.key_frame_every))
    config, framework, step = load_run(a.checkpoint, a.ema) if a.checkpoint else load_untrained(a.config)
    understanding, several = Understanding(config, framework), len(a.video) > 1
    if several:
        answer = understanding.answer_about(a.video, a.question, a.max_new_tokens)
    else:
        answer = understanding.answer(a.video[0], a.question, *options)
    named = [str(path) for path in a.video] if several else str(a.video[0])
    print(as_json(video=named, question=a.question, answer=answer, step=step) if a.json else answer)


def answer_all(a: argparse.Namespace) -> None:
    """Writes this rank's missing answers, ``a.output/NUMBER.json`` for each row of the table ``a.videos``.

    One bad video does not stop the rest. If a video cannot be read or is too long, its file holds the reason instead of
    an answer.

    Args:
        a: The arguments that ``understand.py`` parsed.

    Raises:
        ConfigError: The model is wrong, or there are answers of another one or to other questions.
        DataError: The table cannot be read.
    """
    rows = [
        (f"{number:06d}.json", row["path"], row.get("question") or a.question)
        for number, row in enumerate(read_table(a.videos, "path"))
    ]
    folder, look = a.videos.parent.resolve(), Look(a.start, a.end, a.key_frame_every)
    inputs = {name: {"video": str(folder / video), "question": question} for name, video, question in rows}
    load, model = loader(a)
    settings = model | {"max_new_tokens": a.max_new_tokens} | look._asdict()
    outputs = Outputs(a.output, a.output / NOTE, settings, inputs)
    missing = outputs.missing()
    own = [row for row in own_share(rows) if row[0] in missing]
    if not own:
        return
    config, framework, step = load()
    understanding = Understanding(config, framework)
    outputs.begin()
    for name, video, question in own:
        try:
            outcome = {"answer": understanding.answer(a.videos.parent / video, question, a.max_new_tokens, look)}
        except (ConfigError, DataError) as error:
            outcome = {"error": one_line(error)}
        with atomic_write(a.output / name) as file:
            file.write(as_json(video=video, question=question, **outcome, step=step).encode() + b"\n")
        print(f"{a.output / name}: {video}", flush=True)


def loader(a: argparse.Namespace) -> tuple[Callable[[], Run], dict[str, Any]]:
    """Returns what loads the model, and what it is, as JSON has it."""
    if a.checkpoint:
        weights = weights_of(a.checkpoint).resolve()
        return partial(load_run, weights, a.ema), {"weights": str(weights), "ema": a.ema}
    return partial(load_untrained, a.config), {"config": plain(asdict(load_config(a.config)))}


def as_json(**values) -> str:
    return json.dumps(values, ensure_ascii=False)
