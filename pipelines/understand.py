"""Ask a trained model about videos, or a published one as it is.

    python pipelines/understand.py --checkpoint OUTPUT --video X.mp4 --question "What happens?" [--json]
    python pipelines/understand.py --checkpoint OUTPUT --video A.mp4 B.jpg --question "What differs?"
    python pipelines/understand.py --config X.yaml --video X.mp4         tokeniser.strategy training_free: no training
    torchrun --nproc_per_node 8 pipelines/understand.py --checkpoint OUTPUT --videos FILE.csv --output DIR

Many videos are shared out among the ranks; started again, only those without an answer yet are asked about.
"""

import argparse
import math
from pathlib import Path

from pipelines.cli.checks import MAX_NEW_TOKENS, require_new_folder, require_text
from pipelines.cli.errors import user_errors
from pipelines.cli.steps import add_step, with_step
from vtok.config import require


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ask a trained model about videos, or a published one as it is.")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", type=Path, help="a run's folder, a checkpoint's, or an export")
    model.add_argument("--config", type=Path, help="YAML of a run that needs no training, by its tokeniser.strategy")
    add_step(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--video", type=Path, nargs="+", help="a video or an image, or several for one question")
    what.add_argument(
        "--videos", type=Path, help="table (.csv, .jsonl, …) with a column 'path' and, if wanted, 'question'"
    )
    parser.add_argument("--output", type=Path, help="with --videos: folder for the answers, NUMBER.json a row")
    parser.add_argument("--question", default="Describe this video.")
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--start", type=float, default=0.0, help="seconds: where to begin in the video")
    parser.add_argument("--end", type=float, help="seconds: where to end (default: at its end)")
    parser.add_argument(
        "--key_frame_every", type=float, help="seconds (default: as long as the samples of the training)"
    )
    parser.add_argument("--ema", action="store_true", help="use the average of the weights")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # the deepspeed launcher's; the environment is used
    a = with_step(parser.parse_args(argv))
    require(bool(a.videos) == bool(a.output), "--videos and --output go together")
    require(a.start >= 0 and (a.end is None or a.end > a.start), "--start must lie before --end, and not below 0")
    require(
        a.key_frame_every is None or 0 < a.key_frame_every < math.inf, "--key_frame_every must be positive and finite"
    )
    require(
        1 <= a.max_new_tokens <= MAX_NEW_TOKENS,
        f"--max_new_tokens must lie between 1 and {MAX_NEW_TOKENS:,}, not {a.max_new_tokens}",
    )
    require_text("--question", a.question)
    require(
        len(a.video or []) < 2 or (a.start == 0 and a.end is None and a.key_frame_every is None),
        "--start, --end and --key_frame_every are for one --video: of several the model sees the middle",
    )
    if a.output:
        require_new_folder("--output", a.output)
    require(a.checkpoint is not None or not a.ema, "--ema needs --checkpoint: what was not trained has no average")
    return a


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    with user_errors("understand"):
        arguments = parse_arguments(argv)

        from pipelines.inference.understand import (
            answer_question,  # only now: this imports the libraries, which takes seconds
        )

        answer_question(arguments)


if __name__ == "__main__":
    main()
