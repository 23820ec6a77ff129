"""Divides the inputs of inference among ranks; outputs that exist are not made again.

The ranks never communicate, so any launcher works (deepspeed, torchrun, srun). A rank that dies loses only its own
unfinished inputs. Another start, on any number of ranks, makes the rest.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from data_tools.errors import DataError
from pipelines.cli.launcher import rank_and_ranks

T = TypeVar("T")


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Returns the items of this rank: every ``ranks``-th."""
    rank, ranks = rank_and_ranks()
    return items[rank::ranks]


def read_table(path: Path, column: str) -> list[dict[str, str]]:
    """Reads the rows of a CSV file.

    Args:
        path: The file.
        column: A column in which every row must have a value.

    Raises:
        DataError: The file is unreadable or no CSV, or the column does not exist or has an empty cell.
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
    """Reads prompts: the column ``prompt`` of a CSV file, or the lines of any other text file.

    Raises:
        DataError: The file is unreadable, or has no prompt.
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
