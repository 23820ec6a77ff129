"""Divides the inputs of inference among ranks; outputs that exist are not made again.

A note says what the outputs were asked for. Another start must ask for the same, and may ask for more.

The ranks never communicate, so any launcher works (deepspeed, torchrun, srun). A rank that dies loses only its own
unfinished inputs. Another start, on any number of ranks, makes the rest.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from data_tools.errors import DataError
from data_tools.rows import TABLE_ENDINGS, read_rows
from data_tools.texts import text_lines
from pipelines.cli.launcher import rank_and_ranks
from pipelines.inference.noted import noted, require_unchanged, write_note
from vtok.config import ConfigError, require

T = TypeVar("T")

NOTE = "asked.json"


class Outputs(NamedTuple):
    """The outputs that a start asks for.

    Attributes:
        folder: Folder of the outputs.
        note: File that says what they were asked for.
        settings: All that decides them besides their inputs, as JSON has it.
        inputs: What each is made of, by its name, as JSON has it.
    """

    folder: Path
    note: Path
    settings: dict[str, Any]
    inputs: dict[str, Any]

    def missing(self) -> set[str]:
        """Returns the names of the outputs that are not there, and says how many are.

        Raises:
            ConfigError: There are outputs of other settings or inputs, or nothing says of which.
        """
        # The files are listed before the note is read: other ranks write the note first.
        there = self.inputs.keys() & (set(os.listdir(self.folder)) if self.folder.is_dir() else set())
        made_of = self.noted_inputs()
        require(
            bool(made_of) or not there,
            f"{self.folder} holds outputs, but no {self.note} says what they were asked for: choose another --output",
        )
        if changed := [name for name in there if made_of.get(name) != self.inputs[name]]:
            raise ConfigError(
                f"{self.folder} holds outputs of other inputs: {len(changed)}, the first is {min(changed)}. Add rows "
                "at the end only, choose another --output, or delete these outputs"
            )
        if there and rank_and_ranks()[0] == 0:
            print(f"{self.folder}: {len(there)} of {len(self.inputs)} outputs are there already", flush=True)
        return self.inputs.keys() - there

    def begin(self) -> None:
        """Notes what is asked for, before the first output is written. What was noted before stays.

        Raises:
            ConfigError: Meanwhile another start has asked for other settings.
        """
        before = self.noted_inputs()
        if (made_of := before | self.inputs) != before:
            write_note(self.note, self.settings | {"inputs": made_of})

    def noted_inputs(self) -> dict[str, Any]:
        """Returns the inputs that were noted, none without a note; raises ConfigError if other settings were."""
        before = noted(self.note)
        made_of = before.pop("inputs", {})
        if before:
            require_unchanged(self.note, before, self.settings)
        return made_of


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
