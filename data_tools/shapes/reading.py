"""Read the facts in a caption that a model wrote, and compare them with a scene's.

A caption is right if it tells as many things as the clip shows, each with its colour and shape, and what each of them
does. One scene has many right captions: two things that rest may be told by place, by size or by colour. Sizes and
places of single things are not compared.
"""

import re
from collections import Counter
from functools import cache
from typing import NamedTuple

from data_tools.shapes.scene import Scene
from data_tools.shapes.vocabulary import ACROSS, CATEGORIES, COLOURS, DOWN, NUMBERS, SHAPES, WAYS

THING = re.compile(rf"\ban? (?:small |large )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")
COUNTED = re.compile(
    rf"there (?:is|are) ({'|'.join(NUMBERS.values())}) (?:small |large )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})s?$"
)
PLACE = rf"(?:{'|'.join(DOWN)}) (?:{'|'.join(ACROSS)})"
FIRST = re.compile(rf", first (?:{'|'.join(WAYS.values())})$")
PLACES = re.compile(rf" at the {PLACE}(?:(?:,| and) {PLACE})*")
TURNS = re.compile(rf"turns ({'|'.join(COLOURS)})")
RESTS = ("still", "stays")  # labels of things that do nothing
AT_REST = ("counting", "relative_position", "relative_size", "colour")  # categories of such scenes

# Of each thing that does something: its colour and shape, what it does, and the colour that it turns to.
Events = frozenset[tuple[tuple[str, str], str, str]]


class Told(NamedTuple):
    """What a caption tells, or a scene shows.

    Attributes:
        things: How many there are of each colour and shape.
        events: What happens.
    """

    things: Counter
    events: Events


def shown(scene: Scene) -> Told:
    """What a scene shows."""
    looks = [(thing.colour, thing.shape) for thing in scene.things]
    labels = [scene.label, scene.other_label] if scene.category == "two_movers" else [scene.label]
    after = scene.things[0].colour_after
    return Told(Counter(looks), events_of(scene.category, labels, looks, after))


def events_of(category: str, labels: list[str], looks: list[tuple[str, str]], after: str) -> Events:
    """What the first things do.

    Args:
        category: Category of the scene.
        labels: Label of each thing that does something.
        looks: Colour and shape of each thing.
        after: The colour that the first thing turns to, or "".
    """
    if category in AT_REST:
        return frozenset()
    done = ("bounce" if category == "bounce_count" else label for label in labels)
    return frozenset((look, what, after) for look, what in zip(looks, done) if what not in RESTS)


def told(caption: str) -> Told | None:
    """What a caption tells, or None if it is not a sentence of the language."""
    text = FIRST.sub("", PLACES.sub("", caption.strip().lower().removesuffix(".")))
    if match := COUNTED.search(text):
        number, *looks = match.groups()
        return Told(Counter({tuple(looks): 1 + list(NUMBERS.values()).index(number)}), frozenset())
    things = [(match[1], match[2]) for match in THING.finditer(text)]
    after = match[1] if (match := TURNS.search(text)) else ""
    skeleton = TURNS.sub("turns", THING.sub("@", text))
    skeleton = re.sub(r"^(?:in this clip |in the video |here |one sees that )+", "", skeleton)
    skeleton = re.sub(r" next to @(?: and @)?$", "", skeleton)
    if skeleton not in sentences():
        return None
    category, labels = sentences()[skeleton]
    return Told(Counter(things), events_of(category, labels, things, after))


@cache
def sentences() -> dict[str, tuple[str, list[str]]]:
    """Each sentence, with its things as @: its category and the labels of its things."""
    found = {}
    for name, category in CATEGORIES.items():
        others = category.phrases if name == "two_movers" else {"": ""}
        for clause in category.clauses:
            for label, phrase in category.phrases.items():
                for other, way in others.items():
                    sentence = clause.format(a="@", b="@", label=phrase, other=way)
                    found[sentence] = name, [label, other] if other else [label]
    return found


def caption_is_right(caption: str, scene: Scene) -> bool:
    """Whether a caption tells the number, colours and shapes of a scene's things, and what they do."""
    return told(caption) == shown(scene)
