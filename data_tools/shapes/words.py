"""The words for a scene: its caption, and its question with options."""

import numpy as np

from data_tools.draws import Draws
from data_tools.items import Item, shuffled
from data_tools.shapes.paths import DIRECTIONS
from data_tools.shapes.scene import Scene, Thing
from data_tools.shapes.vocabulary import ACROSS, CATEGORIES, DOWN, WAYS, sentence

FRAMINGS = ("{}", "in this clip {}", "in the video {}", "here {}")
OPTIONS = 4
EDGES = (0.3, 0.43, 0.57, 0.7)  # between named places; no two things of a scene stand within 0.3 of each other
TURNING = ("motion", "bounce_count")  # categories of things that change their way
SOON = 0.05  # of a clip: no path turns twice within it
LARGE = 0.185  # least side of a large thing, midway between the sides of `SIDES`


def caption_of(scene: Scene, draws: Draws, detailed: bool = False) -> str:
    """A caption of the scene, in wording that `draws` chooses.

    Args:
        scene: The scene.
        draws: Chooses the wording.
        detailed: Whether the caption tells the size and the first place of each thing, and which way it moves at first
            if its way changes.
    """

    def a(thing: Thing) -> str:
        return _a(thing, size_of(thing), f" at the {place_of(*thing.start)}") if detailed else _a(thing, thing.size)

    category = CATEGORIES[scene.category]
    one, *others = scene.things
    clause = category.clauses[draws.integer("clause", len(category.clauses))]
    label = category.phrases[scene.label]
    if scene.category == "counting":
        size, plural = f" {size_of(one)}" if detailed else "", "s" * (len(scene.things) > 1)
        label += f"{size} {one.colour} {one.shape}{plural}"
        if detailed:
            label += f" at the {listed([place_of(*thing.start) for thing in scene.things])}"
    elif scene.category == "state":
        label += f" {one.colour_after}" * (scene.label == "changes")
        if others:
            label += f" next to {' and '.join(map(a, others))}"
    elif scene.category in TURNING and detailed and scene.label != "still":
        label += f", first {WAYS[first_way(one)]}"
    other = WAYS.get(scene.other_label, "")
    told = clause.format(a=a(one), b=a(others[0]) if others else "", label=label, other=other)
    return sentence(FRAMINGS[draws.integer("framing", len(FRAMINGS))].format(told))


def item_of(scene: Scene, draws: Draws, id: str) -> Item:
    """The scene's question with up to `OPTIONS` options; `draws` chooses the wrong ones and the order."""
    category = CATEGORIES[scene.category]
    one, other = scene.things[0], scene.things[-1]
    wrong = sorted(
        (label for label in category.answers if label != scene.label), key=lambda x: draws.seed(f"wrong/{x}")
    )
    if scene.other_label:  # always an option: it tests whether the two things are told apart
        wrong = [scene.other_label, *(label for label in wrong if label != scene.other_label)]
    options = tuple(category.answers[label] for label in [scene.label, *wrong[: OPTIONS - 1]])
    question = category.question.format(a=_the(one), b=_the(other), shape=one.shape)
    answer = category.answers[scene.label]
    return shuffled(Item(id, scene.category, caption_of(scene, draws), question, options, answer), draws.run_seed)


def place_of(x: float, y: float) -> str:
    """The name of one of 25 places, from coordinates in 0..1."""
    down, across = (sum(at >= edge for edge in EDGES) for at in (y, x))
    return f"{DOWN[down]} {ACROSS[across]}"


def size_of(thing: Thing) -> str:
    """The size of a thing at first, in words."""
    return "large" if thing.side >= LARGE else "small"


def first_way(thing: Thing) -> str:
    """The one of `DIRECTIONS` in which a thing moves at first."""
    [moved] = thing.path(np.array([SOON]))
    return max(DIRECTIONS, key=lambda way: float(moved @ np.array(DIRECTIONS[way])))


def listed(names: list[str]) -> str:
    """Names as a list in words."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _a(thing: Thing, size: str, place: str = "") -> str:
    return f"a {size + ' ' if size else ''}{thing.colour} {thing.shape}{place}"


def _the(thing: Thing) -> str:
    return f"the {thing.colour} {thing.shape}"
