"""Scores answers by category, with intervals and controls, and prints them as a table."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from data_tools.items import Item
from pipelines.evaluation.accuracy import wilson


class Scored(NamedTuple):
    """What scoring needs of an item, and all that a report has of it; see :class:`data_tools.items.Item`."""

    id: str
    category: str
    options: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Line:
    """A line of the report: one category, or all.

    Attributes:
        name: The category, or ``all``.
        asked: Number of items.
        right: Items that were answered right.
        abstained: Items that were not answered.
        controls: Accuracy of each control, by name.
    """

    name: str
    asked: int
    right: int
    abstained: int
    controls: dict[str, float]


def categories_of(items: Sequence[Scored | Item]) -> list[tuple[str, list[Scored | Item]]]:
    """Groups the items by category, in order of first appearance; the last group, ``all``, has all items."""
    names = dict.fromkeys(item.category for item in items)
    return [*((name, [item for item in items if item.category == name]) for name in names), ("all", items)]


def line_of(name: str, items: Sequence[Scored | Item], own: dict, seen: dict[str, dict]) -> Line:
    """Scores the answers to some items.

    Args:
        name: Name of the line.
        items: The items.
        own: Answers, by the items' ids.
        seen: Answers in each control, by its name and the items' ids.
    """

    def right(said: dict) -> int:
        return sum(said.get(item.id) == item.answer for item in items)

    categories = defaultdict(Counter)
    for item in items:
        categories[item.category][item.answer] += 1
    controls = {
        "chance": sum(1 / len(item.options) for item in items) / len(items),
        "majority": sum(max(counts.values()) for counts in categories.values()) / len(items),
    }
    controls |= {control: right(said) / len(items) for control, said in seen.items()}
    return Line(name, len(items), right(own), sum(own[item.id] is None for item in items), controls)


def as_dict(line: Line) -> dict:
    """Returns a line with its 95 % Wilson interval, for JSON."""
    return asdict(line) | {"interval": asdict(wilson(line.right, line.asked))}


def as_table(lines: list[Line]) -> str:
    """Returns a table of percentages; each accuracy has its 95 % Wilson interval."""
    head = ["category", "items", "accuracy", "95 % interval", "abstained", *lines[0].controls]
    rows = [head]
    for line in lines:
        interval = wilson(line.right, line.asked)
        shares = [line.abstained / line.asked, *line.controls.values()]
        rows.append([
            line.name, str(line.asked), f"{100 * line.right / line.asked:.1f}",
            f"{100 * interval.low:.1f}–{100 * interval.high:.1f}", *(f"{100 * share:.1f}" for share in shares),
        ])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)
