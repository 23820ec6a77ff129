"""VBench's scores of several evaluations in one table: a row for each, a column for each dimension and total.

A report has each dimension's mean only, so there is no test of the differences.
"""

from collections.abc import Sequence
from pathlib import Path

from pipelines.evaluation.results import read_json
from pipelines.evaluation.vbench.totals import DIMENSIONS, WEIGHTS
from vtok.config import require

TOTAL = "total"


def vbench_reports(folders: Sequence[Path]) -> list[dict] | None:
    """Returns the reports of ``evaluate.py vbench``, or ``None`` if all are reports of other evaluations.

    Raises:
        ConfigError: A folder holds no report; only some are of VBench; or they are of other prompts or videos.
    """
    reports = [read_json(folder) for folder in folders]
    theirs = [isinstance(report, dict) and {"scores", "totals", "videos"} <= report.keys() for report in reports]
    if not any(theirs):
        return None
    for folder, own in zip(folders, theirs):
        require(own, f"{folder} is no evaluation with VBench, as others here are: compare like with like")
    for report, folder in zip(reports, folders):
        same = report["settings"].get("prompts") == reports[0]["settings"].get("prompts")
        require(same, f"{folder} has other prompts or names of videos than {folders[0]}: compare like with like")
    return reports


def vbench_table(reports: Sequence[dict], names: Sequence[str]) -> list[list[str]]:
    """Returns the cells of the table, the head first. Scores are in percent; the best of a column is marked ``*``.

    The last column is the difference of the total from the first row's.

    Args:
        reports: Results of :func:`vbench_reports`.
        names: A name for each.
    """
    scores = [report["scores"] | {name: report["totals"].get(name) for name in (*WEIGHTS, TOTAL)} for report in reports]
    columns = [name for name in (*DIMENSIONS, *WEIGHTS, TOTAL) if any(own.get(name) is not None for own in scores)]
    best = {name: max(percent(own.get(name)) for own in scores) for name in columns}
    table = [["", *columns, "difference"]]
    for name, own in zip(names, scores):
        cells = [percent(own.get(column)) for column in columns]
        marked = [f"{cell}{'*' * (len(reports) > 1 and cell == best[column])}" for cell, column in zip(cells, columns)]
        known = own is not scores[0] and None not in (own.get(TOTAL), scores[0].get(TOTAL))
        difference = f"{100 * (own[TOTAL] - scores[0][TOTAL]):+.2f}" if known else ""
        table.append([name, *(cell.strip() for cell in marked), difference])
    return table


def percent(score: float | None) -> str:
    """Returns a score in percent; texts of equal width have the order of the scores."""
    return " " * 6 if score is None else f"{100 * score:6.2f}"
