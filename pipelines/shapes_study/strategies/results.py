"""Reads and writes the measurements of a study of strategies: ``results.jsonl``, a JSON object a line.

{"kind": "study", "origin": ..., "models": ...}                           once, the first line
{"kind": "items", "of": "own", "split": "new", "categories": [["counting", 60], ...]}
{"kind": "arm", "arm": "vtok", "tokens": 34, "flops": 1e15, "g_phi": 18624}
{"kind": "run", "arm": "vtok", "seed": 0, "last_loss": 0.5, "seconds": 400, ..., "key": ...}
{"kind": "answers", "arm": "vtok", "seed": 0, "of": "own", "split": "new", "right": "1f...", "place": "07...", ...}
{"kind": "ceiling", "of": "autoencoder", "split": "new", "right": ..., "place": ..., "size": ...}
{"kind": "shown", "arms": ["vtok", ...]}                                  the arms that have GIFs

``right`` holds a bit for each item, in hexadecimal behind a leading 1. ``place`` and ``size`` hold a character for each
item.
"""

import json
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.shards import atomic_write
from pipelines.shapes_study.origin import RESULTS
from vtok.config import require

CHARACTERS = string.digits + string.ascii_letters

# Lists of whole numbers, one for each item: ``right``, and of videos also ``place`` and ``size``.
Values = dict[str, list[int]]
# What was asked, and of which split: ("own", "new").
Asked = tuple[str, str]


@dataclass
class Results:
    """The measurements of a study.

    Attributes:
        origin: The command and the commit that produced them.
        models: Hash of the shipped models.
        categories: By what was asked, the category of each item.
        arms: By arm, ``tokens``, ``flops`` and ``g_phi``.
        runs: By arm and seed, ``last_loss``, ``seconds`` of the training, ``seconds_of_a_question``,
            ``seconds_of_a_video``, and ``key``, a hash of its settings.
        answers: By arm, what was asked, and seed.
        ceilings: By ceiling and split.
        shown: The arms that have GIFs.
    """

    origin: str
    models: str
    categories: dict[Asked, list[str]] = field(default_factory=dict)
    arms: dict[str, dict[str, float]] = field(default_factory=dict)
    runs: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, dict[Asked, dict[int, Values]]] = field(default_factory=dict)
    ceilings: dict[Asked, Values] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)


def write_results(results: Results, path: Path) -> None:
    """Writes the file."""
    with atomic_write(path) as file:
        for line in lines_of(results):
            file.write((json.dumps(line, separators=(",", ":")) + "\n").encode())


def lines_of(results: Results) -> Iterator[dict[str, Any]]:
    """Yields the objects of the file's lines."""
    yield {"kind": "study", "origin": results.origin, "models": results.models}
    for (of, split), names in results.categories.items():
        counts = [[name, names.count(name)] for name in dict.fromkeys(names)]
        yield {"kind": "items", "of": of, "split": split, "categories": counts}
    for arm, figures in results.arms.items():
        yield {"kind": "arm", "arm": arm} | figures
    for (arm, seed), figures in results.runs.items():
        yield {"kind": "run", "arm": arm, "seed": seed} | figures
    for arm, all_asked in results.answers.items():
        for (of, split), seeds in all_asked.items():
            for seed, values in seeds.items():
                yield {"kind": "answers", "arm": arm, "seed": seed, "of": of, "split": split} | packed(values)
    for (of, split), values in results.ceilings.items():
        yield {"kind": "ceiling", "of": of, "split": split} | packed(values)
    yield {"kind": "shown", "arms": results.shown}


def read_results(folder: Path) -> Results:
    """Reads the file in a folder.

    Raises:
        ConfigError: The file does not exist, or another study wrote it.
    """
    path = folder / RESULTS
    require(path.is_file(), f"{path}: no such file: give a folder with the {RESULTS} of a study")
    study, *lines = map(json.loads, path.read_text().splitlines())
    require("models" in study, f"{path} is of another study than this one: give the folder of a study of strategies")
    results = Results(study["origin"], study["models"])
    for line in lines:
        kind = line.pop("kind")
        if kind == "items":
            names = [name for name, count in line["categories"] for _ in range(count)]
            results.categories[line["of"], line["split"]] = names
        elif kind == "arm":
            results.arms[line.pop("arm")] = line
        elif kind == "run":
            results.runs[line.pop("arm"), line.pop("seed")] = line
        elif kind == "answers":
            arm, seed, asked = line.pop("arm"), line.pop("seed"), (line.pop("of"), line.pop("split"))
            results.answers.setdefault(arm, {}).setdefault(asked, {})[seed] = unpacked(line)
        elif kind == "ceiling":
            asked = line.pop("of"), line.pop("split")
            results.ceilings[asked] = unpacked(line)
        else:
            results.shown = line["arms"]
    return results


def packed(values: Values) -> dict[str, str]:
    """Returns the values as short texts."""
    return {
        name: f"{int('1' + ''.join(map(str, own)), 2):x}" if name == "right" else "".join(CHARACTERS[v] for v in own)
        for name, own in values.items()
    }


def unpacked(texts: dict[str, str]) -> Values:
    """Inverts :func:`packed`."""
    return {
        name: list(map(int, f"{int(text, 16):b}"[1:])) if name == "right" else [CHARACTERS.index(c) for c in text]
        for name, text in texts.items()
    }
