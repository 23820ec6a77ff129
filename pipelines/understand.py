"""Ask a trained model about videos, or a published one as it is.

    python pipelines/understand.py --checkpoint OUTPUT --video X.mp4 --question "What happens?" [--json]
    python pipelines/understand.py --config X.yaml --video X.mp4         tokeniser.strategy training_free: no training
    torchrun --nproc_per_node 8 pipelines/understand.py --checkpoint OUTPUT --videos FILE.csv --output DIR

Many videos are shared out among the ranks; started again, only those without an answer yet are asked about.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor

from data_tools.errors import DataError
from data_tools.shards import atomic_write
from data_tools.video.decode import validate
from data_tools.video.views import CENTRE, make_views, tokeniser_view, window
from pipelines.cli.errors import die, one_line
from pipelines.cli.parsing import load_config
from pipelines.config import RunConfig
from pipelines.engine import distributed, models
from pipelines.engine.loading.loader import views_of
from pipelines.engine.saving import checkpoint
from pipelines.inference.shares import own_share, rank_and_ranks, read_table
from vtok.assembly.build import drawn_weights
from vtok.config import ConfigError, require
from vtok.framework import VTokFramework
from vtok.tokeniser import VisualFeatures


def config_of(output: Path) -> RunConfig:
    """A run's configuration; raises ConfigError if ``output`` is not the folder of a run."""
    if not (output / "config.yaml").is_file():
        raise ConfigError(f"{output} is not the output of a training run (no config.yaml): check --checkpoint")
    return load_config(output / "config.yaml")


def load_run(output: Path, ema: bool = False) -> tuple[RunConfig, VTokFramework, int]:
    """A run's configuration, its framework with the newest trained weights or their average, and their step.

    Raises:
        ConfigError: ``output`` is not the folder of a run, or holds no complete checkpoint.
    """
    config = config_of(output)
    framework = models.load_on_device(config, output)
    step = checkpoint.load_trained(framework, output, ema)
    return config, framework, step


def load_untrained(path: Path) -> tuple[RunConfig, VTokFramework, int]:
    """What :func:`load_run` gives, of a configuration's published weights alone; the step is 0.

    Raises:
        ConfigError: no such configuration, or something between frames and answer has to be trained first.
    """
    config = load_config(path)
    framework = models.load_on_device(config, path.parent)
    if drawn := drawn_weights(framework):
        raise ConfigError(
            f"{path}: {drawn[0]} has random weights: train the model first, or set tokeniser.strategy to training_free"
        )
    return config, framework, 0


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
        return self.framework.understand(frames, question, max_new_tokens, key_frame_every=key_frame_every)

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


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ask a trained model about videos, or a published one as it is.")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", type=Path, help="output folder of a training run")
    model.add_argument("--config", type=Path, help="YAML of a run that needs no training, by its tokeniser.strategy")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--video", type=Path)
    what.add_argument("--videos", type=Path, help="CSV with a column 'path' and, if wanted, 'question'")
    parser.add_argument("--output", type=Path, help="with --videos: folder for the answers, NUMBER.json a row")
    parser.add_argument("--question", default="Describe this video.")
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--key_frame_every", type=float, help="seconds: the whole video, with several key frames")
    parser.add_argument("--ema", action="store_true", help="use the average of the weights")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # the deepspeed launcher's; the environment is used
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    a = parse_arguments(argv)
    try:
        require(bool(a.videos) == bool(a.output), "--videos and --output go together")
        require(a.key_frame_every is None or a.key_frame_every > 0, "--key_frame_every must be positive")
        require(a.checkpoint is not None or not a.ema, "--ema needs --checkpoint: what was not trained has no average")
        options = (a.max_new_tokens, a.key_frame_every)
        load = partial(load_run, a.checkpoint, a.ema) if a.checkpoint else partial(load_untrained, a.config)
        if a.videos:
            answer_all(load, a.videos, a.output, a.question, options)
            return
        config, framework, step = load()
        answer = Understanding(config, framework).answer(a.video, a.question, *options)
    except (ConfigError, DataError) as error:
        die("understand", error, rank_and_ranks()[0])
    if a.json:
        print(as_json(video=str(a.video), question=a.question, answer=answer, step=step))
    else:
        print(answer)


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


if __name__ == "__main__":
    main(sys.argv[1:])
