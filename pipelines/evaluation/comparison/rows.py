"""Pairs reports of the same items: a row for each, compared with the first."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.evaluation.accuracy import Interval, wilson
from pipelines.evaluation.paired import Paired, kappa, paired
from pipelines.evaluation.results import Report
from vtok.config import require

ALL = "all"


@dataclass(frozen=True)
class Row:
    """An evaluation in the table.

    Attributes:
        name: Its name.
        shares: Accuracy by category; the last is of all items.
        interval: 95 % interval of the last.
        against_first: Its difference from the first row, or ``None`` for the first.
        agreement: Cohen's kappa of its answers and the first row's, or ``None`` for the first.
    """

    name: str
    shares: dict[str, float]
    interval: Interval
    against_first: Paired | None
    agreement: float | None


def scorers_of(reports: Sequence[Report]) -> list[str]:
    """Returns the names of the tables that all reports have.

    Raises:
        ConfigError: There is none.
    """
    names = [name for name in reports[0].tables if all(name in report.tables for report in reports)]
    require(names, "these evaluations have no kind of answer in common")
    return names


def rows_of(reports: Sequence[Report], names: Sequence[str], scorer: str) -> list[Row]:
    """Returns a row for each report.

    Args:
        reports: At least one.
        names: A name for each.
        scorer: Whose answers are scored.

    Raises:
        ConfigError: The reports are not about the same items.
    """
    first = asked(reports[0])
    for report, name in zip(reports, names):
        require(asked(report) == first, f"{name} is about other items than {names[0]}: compare like with like")
    ids = list(first)
    said = [{item["id"]: item["said"].get(scorer) for item in report.items} for report in reports]
    right = [{id: answers[id] == first[id][2] for id in ids} for answers in said]
    categories = list(dict.fromkeys(category for category, *_ in first.values()))
    groups = {name: [id for id in ids if first[id][0] == name] for name in categories} | {ALL: ids}
    rows = []
    for name, answers, own in zip(names, said, right):
        shares = {group: sum(own[id] for id in members) / len(members) for group, members in groups.items()}
        begins = not rows
        rows.append(Row(
            name, shares, wilson(sum(own.values()), len(ids)),
            None if begins else paired([right[0][id] for id in ids], [own[id] for id in ids]),
            None if begins else kappa([said[0][id] for id in ids], [answers[id] for id in ids]),
        ))  # fmt: skip
    return rows


def asked(report: Report) -> dict[str, tuple[str, str, str, tuple[str, ...]]]:
    """Returns what a report's items ask, by id: category, question, answer, options in the order of the alphabet."""
    found = {}
    for item in report.items:
        found[item["id"]] = item["category"], item["question"], item["answer"], tuple(sorted(item["options"]))
    return found
