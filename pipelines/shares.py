"""Inference over many inputs: each rank takes its share, and what is there already is not made again.

The ranks never talk to each other, so any launcher will do (deepspeed, torchrun, srun), and a rank that dies costs only
its own unfinished inputs: started again, on any number of ranks, the rest is made.
"""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from data_tools.errors import DataError

T = TypeVar("T")


def rank_and_ranks() -> tuple[int, int]:
    """This process among those started with it. ``srun`` says it in its own words, and only inside a step."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        os.environ.setdefault("LOCAL_RANK", os.environ["SLURM_LOCALID"])
        return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_STEP_NUM_TASKS"])
    return 0, 1


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Every ``ranks``-th of the items: what this rank makes."""
    rank, ranks = rank_and_ranks()
    return items[rank::ranks]


def read_table(path: Path, column: str) -> list[dict[str, str]]:
    """The rows of a CSV that has ``column``, none of them empty there.

    Raises:
        DataError: no such file, not a CSV, no such column, or an empty cell in it.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not rows or column not in rows[0]:
        raise DataError(f"{path} should be a CSV with a column {column!r}")
    for number, row in enumerate(rows, 2):
        if not (row[column] or "").strip():
            raise DataError(f"{path}, line {number}: {column} is empty")
    return rows


def read_prompts(path: Path) -> list[str]:
    """Prompts of a CSV's column ``prompt``, or the lines of any other text file.

    Raises:
        DataError: it cannot be read, or holds none.
    """
    if path.suffix.lower() == ".csv":
        return [row["prompt"].strip() for row in read_table(path, "prompt")]
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not any(prompts):
        raise DataError(f"{path} holds no prompt: one a line, or a CSV with a column 'prompt'")
    return [prompt for prompt in prompts if prompt]
