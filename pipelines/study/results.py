"""What a study measured, as one file: ``results.jsonl``, a JSON object a line. The report is made of it alone.

{"kind": "study", "origin": ..., "missing": 0, "videos": ...}          once, first
{"kind": "frozen", "name": "clip", "figures": {...}}                   a stage before joint training
{"kind": "tokens", "arm": "vtok", "count": 28}                         of a clip
{"kind": "trained", "arm": "vtok", "curve": {"step": [...], ...}}      one a seed, seed after seed
{"kind": "answers", "protocol": "generation", "arm": "vtok", "figures": {"lines": [...]}}      likewise
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.shards import atomic_write
from pipelines.study.curves import Curve
from pipelines.study.seeds import Figures
from vtok.config import require

RESULTS = "results.jsonl"
DIGITS = 6  # of a figure that is kept

ByArm = dict[str, list[Figures]]  # figures, one a seed


@dataclass
class Results:
    """
    Attributes:
        origin: the command and the commit that they were measured with.
        missing: runs that are still to come.
        frozen: the stages before joint training, by name.
        tokens: of a clip, by arm.
        trained: learning curves of each arm, one a seed.
        answers: by protocol (of ``report.MEASURED``).
        videos: what the rows of the picture of videos are; empty without one.
    """

    origin: str
    missing: int = 0
    frozen: dict[str, Figures] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    trained: dict[str, list[Curve]] = field(default_factory=dict)
    answers: dict[str, ByArm] = field(default_factory=dict)
    videos: str = ""


def write_results(results: Results, path: Path) -> None:
    """Write the file; figures keep six digits."""
    with atomic_write(path) as file:
        for line in lines_of(results):
            file.write((json.dumps(rounded(line), separators=(",", ":")) + "\n").encode())


def lines_of(results: Results) -> Iterator[dict[str, Any]]:
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
    """The results in a file.

    Raises:
        ConfigError: there is no such file.
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
    """The curve's values by name: names are stored once, not at each point."""
    return {name: [point[name] for point in curve] for name in curve[0]}


def points_of(columns: dict[str, list[float | None]]) -> Curve:
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def rounded(value: Any) -> Any:
    """Plain data with its floats to ``DIGITS`` digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list | tuple) else value
