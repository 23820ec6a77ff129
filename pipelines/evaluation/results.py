"""The report of an evaluation: settings, tables, and what was said to each item.

All protocols write this one form.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.evaluation.stored_answers import REPORT, write_report
from pipelines.evaluation.tables import Line, Scored, as_dict, categories_of, line_of
from vtok.config import ConfigError


@dataclass(frozen=True)
class Report:
    """A report that was read.

    Attributes:
        folder: Its folder.
        settings: What was evaluated.
        tables: Lines of each table, by the scorer's name.
        items: Results of :func:`item_result`.
    """

    folder: Path
    settings: dict[str, Any]
    tables: dict[str, list[dict]]
    items: list[dict]


def place_of(video: Path, output: Path) -> str:
    """Returns the path of a video for a report: below the evaluation's folder if it is there, else the whole path."""
    whole, folder = video.resolve(), output.resolve()
    return str(whole.relative_to(folder) if whole.is_relative_to(folder) else whole)


def item_result(
    id: str, category: str, video: str, prompt: str, question: str, options: Sequence[str], answer: str,
    said: dict[str, str | None],
) -> dict:  # fmt: skip
    """Returns an item and what was said to it, for JSON.

    Args:
        id, category, question, options: Of the item.
        video: Result of :func:`place_of`.
        prompt: The text that the video was made from, if any.
        answer: The right answer: an option's text or its letter.
        said: Answers of the same kind, or ``None`` for an abstention, by the name of scorer or control.
    """
    return {
        "id": id, "category": category, "video": video, "prompt": prompt, "question": question,
        "options": list(options), "answer": answer, "said": said,
    }  # fmt: skip


def lines_of(items: list[dict], scorer: str, *controls: str) -> list[Line]:
    """Returns a line for each category and one for all.

    Args:
        items: Results of :func:`item_result`.
        scorer: Name of the answers to score.
        controls: Names of the answers to compare with.
    """
    scored = [Scored(item["id"], item["category"], tuple(item["options"]), item["answer"]) for item in items]
    own = {item["id"]: item["said"][scorer] for item in items}
    seen = {
        name.removesuffix(f" {scorer}"): {item["id"]: item["said"].get(name) for item in items} for name in controls
    }
    return [line_of(name, group, own, seen) for name, group in categories_of(scored)]


def write_results(output: Path, settings: dict, tables: dict[str, list[Line]], items: list[dict]) -> None:
    """Writes ``output/report.json``.

    Args:
        output: Folder of the evaluation.
        settings: What was evaluated.
        tables: Lines of each table, by the scorer's name. The names are those of the items' answers.
        items: Results of :func:`item_result`.
    """
    plain = {name: [as_dict(line) for line in lines] for name, lines in tables.items()}
    write_report(output, {"settings": settings, "tables": plain, "items": items})


def read_report(folder: Path) -> Report:
    """Reads the report of an evaluation of items.

    Raises:
        ConfigError: There is none, or it is not of this form.
    """
    read = read_json(folder)
    try:
        return Report(folder, read["settings"], read["tables"], read["items"])
    except (KeyError, TypeError) as error:
        raise no_report(folder) from error


def read_json(folder: Path) -> Any:
    """Reads the report of an evaluation of any form; raises ConfigError if there is none."""
    try:
        return json.loads((folder / REPORT).read_bytes())
    except OSError as error:
        raise ConfigError(f"{folder} holds no finished evaluation: cannot read {REPORT}: {error.strerror}") from error
    except ValueError as error:
        raise no_report(folder) from error


def no_report(folder: Path) -> ConfigError:
    """Returns the error of a report that is not of our form."""
    return ConfigError(f"{folder / REPORT} is no report of evaluate.py, or one of an older version: run it again")
