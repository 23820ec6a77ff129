"""Reads and writes the measurements of a study: ``results.jsonl``, a JSON object a line. The report needs nothing else.

{"kind": "study", "origin": ..., "missing": 0, "videos": ...}          once, the first line
{"kind": "frozen", "name": "clip", "figures": {...}}                   one for each stage before joint training
{"kind": "tokens", "arm": "vtok", "count": 28}                         visual tokens of a clip
{"kind": "trained", "arm": "vtok", "curve": {"step": [...], ...}}      one for each seed, in order
{"kind": "answers", "protocol": "generation", "arm": "vtok", "figures": {"lines": [...]}}      one for each seed
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.shards import atomic_write
from pipelines.shapes_study.curves import Curve
from pipelines.shapes_study.seeds import Figures
from vtok.config import require

RESULTS = "results.jsonl"
DIGITS = 6  # significant digits of a stored figure

# By arm, the figures of each seed.
ByArm = dict[str, list[Figures]]


@dataclass
class Results:
    """The measurements of a study.

    Attributes:
        origin: The command and the commit that produced them.
        missing: Runs that are not done yet.
        frozen: Figures of the stages before joint training, by name.
        tokens: Visual tokens of a clip, by arm.
        trained: Learning curves of each arm, one for each seed.
        answers: Answers by protocol (see ``report.MEASURED``) and arm.
        videos: Names of the rows in the picture of videos; empty without a picture.
    """

    origin: str
    missing: int = 0
    frozen: dict[str, Figures] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    trained: dict[str, list[Curve]] = field(default_factory=dict)
    answers: dict[str, ByArm] = field(default_factory=dict)
    videos: str = ""


def write_results(results: Results, path: Path) -> None:
    """Writes the file. Figures keep six significant digits."""
    with atomic_write(path) as file:
        for line in lines_of(results):
            file.write((json.dumps(rounded(line), separators=(",", ":")) + "\n").encode())


def lines_of(results: Results) -> Iterator[dict[str, Any]]:
    """Yields the objects of the file's lines."""
    yield {"kind": "study", "origin": results.origin, "missing": results.missing, "videos": results.videos}
    for name, figures in results.frozen.items():
        yield {"kind": "frozen", "name": name, "figures": figures}
    for arm, count in results.tokens.items():
        yield {"kind": "tokens", "arm": arm, "count": count}
    for arm, curves in results.trained.items():
        yield from ({"kind": "trained", "arm": arm, "curve": columns_of(curve)} for curve in curves)
    for protocol, arms in results.answers.items():
        for arm, runs in arms.items():
            yield from ({"kind": "answers", "protocol": protocol, "arm": arm, "figures": figures} for figures in runs)


def read_results(path: Path) -> Results:
    """Reads the file.

    Raises:
        ConfigError: The file does not exist.
    """
    require(path.is_file(), f"{path}: no such file: give a folder with a study's {RESULTS}")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    by_kind: dict[str, list[dict]] = defaultdict(list)
    for line in lines:
        by_kind[line.pop("kind")].append(line)
    (study,) = by_kind["study"]
    results = Results(**study)
    results.frozen = {line["name"]: line["figures"] for line in by_kind["frozen"]}
    results.tokens = {line["arm"]: line["count"] for line in by_kind["tokens"]}
    for line in by_kind["trained"]:
        results.trained.setdefault(line["arm"], []).append(points_of(line["curve"]))
    for line in by_kind["answers"]:
        results.answers.setdefault(line["protocol"], {}).setdefault(line["arm"], []).append(line["figures"])
    return results


def columns_of(curve: Curve) -> dict[str, list[float | None]]:
    """Returns the curve's values by name, so that each name is stored once and not at every point."""
    return {name: [point[name] for point in curve] for name in curve[0]}


def points_of(columns: dict[str, list[float | None]]) -> Curve:
    """Inverts :func:`columns_of`."""
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def rounded(value: Any) -> Any:
    """Returns plain data with its floats rounded to ``DIGITS`` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list | tuple) else value
