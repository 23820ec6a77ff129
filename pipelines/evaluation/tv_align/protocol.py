"""Pure functions that assign questions to videos and score the answers.

A judge is asked about each video: its own question, and as a control the question of another item of the category. As a
second control the own question is asked about the first frame, repeated. Videos without a prompt are a third control:
the judge is asked many items' questions about each of them.
"""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass

from data_tools.draws import keyed_seed
from data_tools.items import Item
from pipelines.evaluation.accuracy import wilson

FREE = "unconditional"  # names of videos without a prompt begin with this


@dataclass(frozen=True)
class Viewing:
    """A video and the questions about it.

    Attributes:
        name: Name of the video's file, without suffix.
        prompt: Prompt of the video; empty for an unconditional one.
        asked: Items whose questions are asked.
        own: The item that the video was made for, or ``None`` for an unconditional one.
    """

    name: str
    prompt: str
    asked: tuple[Item, ...]
    own: Item | None


@dataclass(frozen=True)
class Answers:
    """A judge's answers about a video: texts of options, or ``None`` where it abstained, by the items' ids.

    Attributes:
        said: Answers about the video.
        frozen: Answers about its first frame, repeated.
    """

    said: dict[str, str | None]
    frozen: dict[str, str | None]


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


def viewings(items: list[Item], unconditional: int, seed: int) -> list[Viewing]:
    """Returns a viewing for each item, then the unconditional ones.

    Args:
        items: The items. Their ids name the videos.
        unconditional: Number of videos without a prompt; at most the number of items is used.
        seed: Seed of the pairs for the control.
    """
    others = partners(items, seed)
    own = [Viewing(item.id, item.prompt, tuple({item.id: item, others[item.id].id: others[item.id]}.values()), item)
           for item in items]  # fmt: skip
    free = [
        Viewing(f"{FREE}-{k:03d}", "", tuple(items[k::unconditional]), None)
        for k in range(min(unconditional, len(items)))
    ]
    return own + free


def partners(items: list[Item], seed: int) -> dict[str, Item]:
    """Pairs each item, by id, with another one of its category at random. A category's only item is its own partner."""
    categories = defaultdict(list)
    for item in sorted(items, key=lambda item: keyed_seed(seed, 0, f"partner/{item.id}")):
        categories[item.category].append(item)
    return {one.id: other for group in categories.values() for one, other in zip(group, [*group[1:], group[0]])}


def report(items: list[Item], viewed: list[Viewing], answers: list[Answers]) -> list[Line]:
    """Scores the answers.

    Args:
        items: The items.
        viewed: The viewings.
        answers: The answers about each viewing.

    Returns:
        A line for each category, in the order of the items, and one for all.
    """
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
    """Groups the items by category, in order of first appearance; the last group, ``all``, has all items."""
    names = dict.fromkeys(item.category for item in items)
    return [*((name, [item for item in items if item.category == name]) for name in names), ("all", items)]


def line_of(name: str, items: list[Item], own: dict, seen: dict[str, dict]) -> Line:
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
