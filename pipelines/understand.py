"""Ask a trained model about a video.

python pipelines/understand.py --checkpoint OUTPUT --video X.mp4 --question "What happens?" [--json]
"""

import argparse
import json
import sys
from pathlib import Path

from data_tools.errors import DataError
from data_tools.video import validate
from data_tools.views import CENTRE, make_views, window
from pipelines.config import RunConfig, die, load_config
from pipelines.engine import checkpoint, distributed, models
from pipelines.engine.loader import views_of
from pipelines.engine.setup import cast_parameters, precision
from vtok.config import ConfigError
from vtok.framework import VTokFramework


def load_run(output: Path, ema: bool = False) -> tuple[RunConfig, VTokFramework, int]:
    """A run's configuration, its framework with the newest trained weights or their average, and their step.

    Raises:
        ConfigError: ``output`` is not the folder of a run, or holds no complete checkpoint.
    """
    if not (output / "config.yaml").is_file():
        raise ConfigError(f"{output} is not the output of a training run (no config.yaml): check --checkpoint")
    config = load_config(output / "config.yaml")
    framework = models.load_framework(config, output)
    step = checkpoint.load_trained(framework, output, ema)
    cast_parameters(framework, precision(config.train))
    return config, framework.eval().to(distributed.device()), step


class Understanding:
    """Answers questions about video files as the model was trained to see them."""

    def __init__(self, config: RunConfig, framework: VTokFramework):
        self.config = config
        self.framework = framework
        self.views = views_of(config, framework.tokeniser.feature_extractor.image_size)

    def answer(self, video: Path, question: str, max_new_tokens: int = 128) -> str:
        """The answer about the centred window of a clip.

        Raises:
            DataError: the video cannot be read.
        """
        if not video.is_file():
            raise DataError(f"no such video: {video}")
        duration = validate(video).duration
        data = self.config.data
        start = window(duration, data.seconds, CENTRE)
        views = make_views(video, duration, *self.views, start, data.fit, data.decoder, skip=("video",))
        frames = views.frames[: views.frames_valid].to(distributed.device())
        return self.framework.understand(frames, question, max_new_tokens)


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(description="Ask a trained model about a video.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="output folder of a training run")
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--question", default="Describe this video.")
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--ema", action="store_true", help="use the average of the weights")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    try:
        config, framework, step = load_run(arguments.checkpoint, arguments.ema)
        answer = Understanding(config, framework).answer(arguments.video, arguments.question, arguments.max_new_tokens)
    except (ConfigError, DataError) as error:
        die("understand", error)
    if arguments.json:
        print(json.dumps(dict(
            video=str(arguments.video), question=arguments.question, answer=answer, step=step
        ), ensure_ascii=False))  # fmt: skip
    else:
        print(answer)


if __name__ == "__main__":
    main(sys.argv[1:])
