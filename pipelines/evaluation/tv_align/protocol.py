"""Pure functions that assign questions to videos and sort the answers.

A judge is asked about each video: its own question, and as a control the question of another item of the category. As a
second control the own question is asked about the first frame, repeated. Videos without a prompt are a third control:
the judge is asked many items' questions about each of them.
"""

from collections import defaultdict
from dataclasses import dataclass

from data_tools.draws import keyed_seed
from data_tools.items import Item

# Whose answers: the judge's about the item's own video, and those of the controls.
JUDGE, FROZEN, SHUFFLED = "judge", "frozen", "shuffled"
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


def sayings(viewed: list[Viewing], answers: list[Answers]) -> dict[str, dict[str, str | None]]:
    """Sorts the answers by item.

    Args:
        viewed: The viewings.
        answers: The answers about each viewing.

    Returns:
        For each item's id its answers: by the judge about the own video, and by the names of the controls.
    """
    found: dict[str, dict[str, str | None]] = defaultdict(dict)
    for viewing, given in zip(viewed, answers):
        for item in viewing.asked:
            said = given.said[item.id]
            if viewing.own is None:
                found[item.id][FREE] = said
            elif item == viewing.own:
                found[item.id] |= {JUDGE: said, FROZEN: given.frozen[item.id]}
            else:
                found[item.id][SHUFFLED] = said
    return found
