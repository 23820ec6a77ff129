"""Divides the inputs of inference among ranks; outputs that exist are not made again.

The ranks never communicate, so any launcher works (deepspeed, torchrun, srun). A rank that dies loses only its own
unfinished inputs. Another start, on any number of ranks, makes the rest.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from data_tools.errors import DataError
from data_tools.rows import TABLE_ENDINGS, read_rows
from data_tools.texts import text_lines
from pipelines.cli.launcher import rank_and_ranks

T = TypeVar("T")


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Returns the items of this rank: every ``ranks``-th."""
    rank, ranks = rank_and_ranks()
    return items[rank::ranks]


def read_table(path: Path, column: str) -> list[dict[str, str]]:
    """Reads the rows of a table (.csv, .tsv, .jsonl, .json or .parquet), without empty cells.

    Args:
        path: The file.
        column: A column in which every row must have a text.

    Raises:
        DataError: The file is unreadable or no table, or the column does not exist or has an empty cell.
    """
    _, rows = read_rows(path, [column])
    if empty := [number for number, row in enumerate(rows, 1) if column not in row]:
        raise DataError(f"{path}, row {empty[0]}: {column} is empty")
    if not rows:
        raise DataError(f"{path} has no rows: add one for each output")
    return [{name: str(value) for name, value in row.items()} for row in rows]


def read_prompts(path: Path) -> list[str]:
    """Reads prompts: the column ``prompt`` of a table, or the lines of any other text file.

    Raises:
        DataError: The file is unreadable, or has no prompt.
    """
    if path.suffix.lower() in TABLE_ENDINGS:
        return [row["prompt"].strip() for row in read_table(path, "prompt")]
    prompts = [line.strip() for line in text_lines(path) if line.strip()]
    if not prompts:
        raise DataError(f"{path} holds no prompt: one a line, or a table with a column 'prompt'")
    return prompts
