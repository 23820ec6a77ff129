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

from data_tools.errors import DataError
from data_tools.shards import atomic_write
from pipelines.cli.errors import die, one_line
from pipelines.engine.launcher import rank_and_ranks
from pipelines.inference.load import load_run, load_untrained
from pipelines.inference.shares import own_share, read_table
from pipelines.inference.understand import Understanding
from vtok.config import ConfigError, require


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
