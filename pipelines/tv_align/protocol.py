"""What is asked about which video, and what the answers come to: pure functions.

A video is asked its own question and, as a control, that of another item of its category; asked also as its first
frame, frozen. Samples without a prompt are each asked many items' questions.
"""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass

from data_tools.draws import keyed_seed
from data_tools.items import Item
from pipelines.accuracy import wilson

FREE = "unconditional"  # begins the names of the videos without a prompt


@dataclass(frozen=True)
class Viewing:
    """A video and what it is asked.

    own: the item that it was made for, if for any.
    """

    name: str
    prompt: str
    asked: tuple[Item, ...]
    own: Item | None


@dataclass(frozen=True)
class Answers:
    """What a judge said about a video: texts of options or None, by the items' ids."""

    said: dict[str, str | None]
    frozen: dict[str, str | None]


@dataclass(frozen=True)
class Line:
    """Of the report: a category, or all.

    right, abstained: of the items asked.
    controls: accuracy without what is to be measured, by name.
    """

    name: str
    asked: int
    right: int
    abstained: int
    controls: dict[str, float]


def viewings(items: list[Item], unconditional: int, seed: int) -> list[Viewing]:
    """One for each item, then as many as wanted without a prompt; the items' ids name the videos."""
    others = partners(items, seed)
    own = [Viewing(item.id, item.prompt, tuple({item.id: item, others[item.id].id: others[item.id]}.values()), item)
           for item in items]  # fmt: skip
    free = [
        Viewing(f"{FREE}-{k:03d}", "", tuple(items[k::unconditional]), None)
        for k in range(min(unconditional, len(items)))
    ]
    return own + free


def partners(items: list[Item], seed: int) -> dict[str, Item]:
    """Another item of the same category for each, in drawn order; a category's only item is its own."""
    categories = defaultdict(list)
    for item in sorted(items, key=lambda item: keyed_seed(seed, 0, f"partner/{item.id}")):
        categories[item.category].append(item)
    return {one.id: other for group in categories.values() for one, other in zip(group, [*group[1:], group[0]])}


def report(items: list[Item], viewed: list[Viewing], answers: list[Answers]) -> list[Line]:
    """A line for each category in the items' order, and one for all of them together."""
    own, frozen, shuffled, free = {}, {}, {}, {}
    for viewing, given in zip(viewed, answers):
        for item in viewing.asked:
            said = given.said[item.id]
            if viewing.own is None:
                free[item.id] = said
            elif item == viewing.own:
                own[item.id], frozen[item.id] = said, given.frozen[item.id]
            else:
                shuffled[item.id] = said
    seen = {"frozen": frozen, "shuffled": shuffled} | ({FREE: free} if free else {})
    return [line_of(name, group, own, seen) for name, group in categories_of(items)]


def categories_of(items: list[Item]) -> list[tuple[str, list[Item]]]:
    """The items of each category, in the order in which categories come up, and then all of them."""
    names = dict.fromkeys(item.category for item in items)
    return [*((name, [item for item in items if item.category == name]) for name in names), ("all", items)]


def line_of(name: str, items: list[Item], own: dict, seen: dict[str, dict]) -> Line:
    """What the answers to some items come to.

    Args:
        own: what was said, by the items' ids.
        seen: controls: what was said without what is to be measured.
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
    """For JSON, with its interval."""
    return asdict(line) | {"interval": asdict(wilson(line.right, line.asked))}


def as_table(lines: list[Line]) -> str:
    """For people: percentages, the accuracy with its 95 % Wilson interval."""
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
