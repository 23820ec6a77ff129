"""Answers questions about video files."""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor

from data_tools.errors import DataError
from data_tools.shards import atomic_write
from data_tools.video.decode import validate
from data_tools.video.views import CENTRE, make_views, tokeniser_view, window
from pipelines.cli.errors import one_line
from pipelines.config import RunConfig
from pipelines.engine import distributed
from pipelines.inference.load import load_run, load_untrained
from pipelines.inference.shares import own_share, read_table
from pipelines.views import views_of
from vtok.config import ConfigError
from vtok.framework import VTokFramework
from vtok.tokeniser import VisualFeatures
from vtok.understanding import understand


def duration_of(video: Path) -> float:
    """Seconds of a video file that a user named.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    if not video.is_file():
        raise DataError(f"no such video: {video}")
    return validate(video).duration


class Understanding:
    """Answers questions about video files as the model was trained to see them."""

    def __init__(self, config: RunConfig, framework: VTokFramework):
        self.config = config
        self.framework = framework
        self.views = views_of(config, framework.tokeniser.feature_extractor.image_size)

    def answer(
        self, video: Path, question: str, max_new_tokens: int = 128, key_frame_every: float | None = None
    ) -> str:
        """The answer about a video.

        Args:
            key_frame_every: look at the whole video, with a key frame every so many seconds, instead of at the centred
                window that training would take.

        Raises:
            DataError: the video cannot be read.
        """
        frames = self.frames_of(video, key_frame_every)
        return understand(self.framework, frames, question, max_new_tokens, key_frame_every=key_frame_every)

    def frames_of(self, video: Path, key_frame_every: float | None = None) -> Tensor:
        """What the model sees of a video, (T, 3, h, w) ``uint8``; arguments and errors as in :meth:`answer`."""
        duration = duration_of(video)
        data, (tokeniser, decoder) = self.config.data, self.views
        start = window(duration, data.seconds, CENTRE)
        if key_frame_every:
            tokeniser = tokeniser_view(duration, tokeniser.fps, tokeniser.height, tokeniser.width)
            start = 0.0
        views = make_views(video, duration, tokeniser, decoder, start, data.fit, data.decoder, skip=("video",))
        return views.frames[: views.frames_valid].to(distributed.device())

    def features_of(self, video: Path) -> VisualFeatures:
        """Frozen features of the window that training would take; errors as in :meth:`answer`."""
        return self.framework.tokeniser.features(self.frames_of(video)[None])


def answer_question(a: argparse.Namespace) -> None:
    """Runs the command ``understand.py``: prints one answer, or writes this rank's answers about many videos.

    Args:
        a: The arguments that ``understand.py`` parsed.

    Raises:
        ConfigError: The checkpoint or the configuration is wrong.
        DataError: The video or the table cannot be read.
    """
    options = (a.max_new_tokens, a.key_frame_every)
    load = partial(load_run, a.checkpoint, a.ema) if a.checkpoint else partial(load_untrained, a.config)
    if a.videos:
        answer_all(load, a.videos, a.output, a.question, options)
        return
    config, framework, step = load()
    answer = Understanding(config, framework).answer(a.video, a.question, *options)
    print(as_json(video=str(a.video), question=a.question, answer=answer, step=step) if a.json else answer)


def answer_all(load: Callable, table: Path, output: Path, question: str, options: tuple) -> None:
    """Write this rank's answers, ``output/NUMBER.json`` for each row of the table.

    A video that cannot be read, or is too long, gets its reason in place of an answer: the others are not its hostages.

    Args:
        load: a run, as :func:`load_run` gives it; called if there is anything left to do.
        options: further arguments of :meth:`Understanding.answer`.

    Raises:
        DataError: the table cannot be read.
    """
    rows = list(enumerate(read_table(table, "path")))
    paths = {row: output / f"{row:06d}.json" for row, _ in rows}
    missing = [(row, cells) for row, cells in own_share(rows) if not paths[row].exists()]
    if not missing:
        return
    config, framework, step = load()
    understanding = Understanding(config, framework)
    output.mkdir(parents=True, exist_ok=True)
    for row, cells in missing:
        asked = cells.get("question") or question
        try:
            outcome = {"answer": understanding.answer(table.parent / cells["path"], asked, *options)}
        except (ConfigError, DataError) as error:
            outcome = {"error": one_line(error)}
        with atomic_write(paths[row]) as file:
            file.write(as_json(video=cells["path"], question=asked, **outcome, step=step).encode() + b"\n")
        print(f"{paths[row]}: {cells['path']}", flush=True)


def as_json(**values) -> str:
    return json.dumps(values, ensure_ascii=False)
