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
    """Returns the length of a video file in seconds.

    Raises:
        DataError: The file does not exist or cannot be read.
    """
    if not video.is_file():
        raise DataError(f"no such video: {video}")
    return validate(video).duration


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

    def answer(
        self, video: Path, question: str, max_new_tokens: int = 128, key_frame_every: float | None = None
    ) -> str:
        """Answers a question about a video.

        Args:
            video: Path of the video.
            question: The question.
            max_new_tokens: Longest answer, in tokens.
            key_frame_every: Seconds between key frames; the model then sees the whole video. By default it sees the
                centred window of the length used in training.

        Raises:
            DataError: The video cannot be read.
        """
        frames = self.frames_of(video, key_frame_every)
        return understand(self.framework, frames, question, max_new_tokens, key_frame_every=key_frame_every)

    def frames_of(self, video: Path, key_frame_every: float | None = None) -> Tensor:
        """Returns the frames that the model sees, (T, 3, h, w) ``uint8``; arguments and errors as in :meth:`answer`."""
        duration = duration_of(video)
        data, (tokeniser, decoder) = self.config.data, self.views
        start = window(duration, data.seconds, CENTRE)
        if key_frame_every:
            tokeniser = tokeniser_view(duration, tokeniser.fps, tokeniser.height, tokeniser.width)
            start = 0.0
        views = make_views(video, duration, tokeniser, decoder, start, data.fit, data.decoder, skip=("video",))
        return views.frames[: views.frames_valid].to(distributed.device())

    def features_of(self, video: Path) -> VisualFeatures:
        """Returns the frozen features of the centred window; errors as in :meth:`answer`."""
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
    """Writes this rank's missing answers, ``output/NUMBER.json`` for each row of the table.

    One bad video does not stop the rest. If a video cannot be read or is too long, its file holds the reason instead of
    an answer.

    Args:
        load: Loads the model, with the results of :func:`load_run`. Called only if an answer is missing.
        table: Table with a column ``path`` and optionally ``question``.
        output: Folder of the answers.
        question: Question about the videos whose row has none.
        options: Further arguments of :meth:`Understanding.answer`.

    Raises:
        DataError: The table cannot be read.
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
