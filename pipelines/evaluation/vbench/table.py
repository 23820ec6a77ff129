"""VBench's table: each dimension's score, and the totals of which all dimensions were scored."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_tools.errors import DataError
from pipelines.evaluation.vbench.totals import DIMENSIONS, QUALITY, SEMANTIC, normalised, totals

FLICKERING = (
    "temporal_flickering: of all videos that are there. VBench's own table counts static ones only, which its command "
    "`vbench static_filter` chooses from 25 a prompt."
)


def scores_in(files: Sequence[Path]) -> dict[str, float]:
    """Reads the scores in VBench's results, ``NAME_eval_results.json``.

    Raises:
        DataError: A file cannot be read, is not of this form, or two give the same dimension.
    """
    scores: dict[str, float] = {}
    for file in files:
        try:
            found = {name: float(result[0]) for name, result in json.loads(file.read_text()).items()}
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise DataError(f"{file} is no result of VBench: {error}") from error
        if unknown := found.keys() - DIMENSIONS.keys():
            raise DataError(f"{file} has dimensions that are not of VBench's 16: {', '.join(sorted(unknown))}")
        if twice := found.keys() & scores.keys():
            raise DataError(f"{file} gives {', '.join(sorted(twice))} once more: name each result once")
        scores |= found
    return scores


def as_markdown(scores: Mapping[str, float], counts: Mapping[str, int] | None = None) -> str:
    """Returns the table, in percent.

    Args:
        scores: Score by dimension.
        counts: Number of videos by dimension, if known.
    """
    rows = [["", "score", "normalised", "weight", *(["videos"] if counts else [])]]
    for name, scale in DIMENSIONS.items():
        if name in scores:
            videos = [str(counts[name])] if counts else []
            share = f"{100 * normalised(name, scores[name]):.2f}"
            rows.append([name, f"{100 * scores[name]:.2f}", share, f"{scale.weight:g}", *videos])
    for name, value in totals(scores).items():
        empty = [""] * (len(rows[0]) - 3)
        rows.append([f"**{name}**", "" if value is None else f"**{100 * value:.2f}**", "", *empty])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [FLICKERING] if "temporal_flickering" in scores else []
    notes += [
        f"{name}: without {', '.join(missing)}."
        for name, scales in {"quality": QUALITY, "semantic": SEMANTIC}.items()
        if (missing := [each for each in scales if each not in scores])
    ]
    return "\n\n".join(["\n".join(lines), *notes])
