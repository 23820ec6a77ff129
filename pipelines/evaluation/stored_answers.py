"""Stores each answer of an evaluation as a JSON file. Ranks share the work, and stored answers are not asked again.

The rank that finds all answers stored writes the report.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data_tools.shards import atomic_write
from pipelines.inference.noted import write_whole
from pipelines.inference.shares import own_share
from vtok.config import require

REPORT = "report.json"


def answer_all(names: Sequence[str], output: Path, common: dict, answer: Callable[[str], dict | None]) -> None:
    """Writes this rank's share of ``output/answers/NAME.json``, except for files that exist.

    Args:
        names: Names of all answers.
        output: Folder of the evaluation.
        common: Settings that are stored with every answer.
        answer: Returns the answer of a name, as plain data; ``None`` if there is none, so that it is asked again later.
    """
    folder = output / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    for name in own_share(names):
        path = folder / f"{name}.json"
        if not path.exists() and (found := answer(name)) is not None:
            stored = found | {"settings": common}
            with atomic_write(path) as file:
                file.write(json.dumps(stored, ensure_ascii=False).encode() + b"\n")


def stored_answers(names: Sequence[str], output: Path, common: dict) -> list[dict] | None:
    """Returns all answers in the order of ``names``. If some are missing, prints how many and returns ``None``.

    Raises:
        ConfigError: An answer has other settings, or the answers are about different steps of the run.
    """
    paths = [output / "answers" / f"{name}.json" for name in names]
    missing = sum(not path.exists() for path in paths)
    if missing:
        print(f"{missing} of {len(paths)} answers are still to come: from other ranks, or from another start")
        return None
    stored = [json.loads(path.read_bytes()) for path in paths]
    same = all(one["settings"] == common for one in stored) and len({one.get("step") for one in stored}) == 1
    require(same, f"{output} holds answers of another evaluation: choose another --output or delete it")
    return stored


def write_report(output: Path, report: Mapping) -> None:
    """Writes ``output/report.json``; the file appears only when it is complete."""
    write_whole(output / REPORT, json.dumps(report, indent=1) + "\n")
