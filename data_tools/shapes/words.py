"""What can be said of a scene: the categories' labels, captions, questions and answers."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_tools.draws import Draws
from data_tools.items import Item, shuffled

if TYPE_CHECKING:
    from data_tools.shapes.scene import Scene, Thing

SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (230, 40, 40),
    "green": (40, 200, 70),
    "blue": (60, 110, 255),
    "yellow": (245, 220, 50),
    "purple": (180, 70, 220),
    "white": (240, 240, 240),
}
NUMBERS = {"1": "one", "2": "two", "3": "three", "4": "four", "5": "five"}
WAYS = {
    "left": "to the left",
    "right": "to the right",
    "up": "up",
    "down": "down",
    "up-left": "up and to the left",
    "up-right": "up and to the right",
    "down-left": "down and to the left",
    "down-right": "down and to the right",
}
TIMES = {"1": "once", "2": "twice", "3": "three times", "4": "four times"}


@dataclass(frozen=True)
class Category:
    """
    question: `{a}` is the thing asked about, `{b}` the other, `{shape}` the shape of the first.
    clauses: what a caption says, in several ways; `{label}` is the label's phrase.
    phrases, answers: of each label.
    """

    question: str
    clauses: tuple[str, ...]
    phrases: dict[str, str]
    answers: dict[str, str]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _sentences(phrases: dict[str, str]) -> dict[str, str]:
    return {label: _sentence(phrase) for label, phrase in phrases.items()}


CATEGORIES = {
    "counting": Category(
        question="How many shapes are there?",
        clauses=("there {label}", "one sees that there {label}"),
        phrases={label: f"{'is' if label == '1' else 'are'} {word}" for label, word in NUMBERS.items()},
        answers=_sentences(NUMBERS),
    ),
    "direction": Category(
        question="Which way does {a} move?",
        clauses=("{a} moves {label}", "{a} slides {label}", "{a} travels {label}"),
        phrases=WAYS,
        answers=_sentences(WAYS),
    ),
    "relative_position": Category(
        question="Where is {a}, seen from {b}?",
        clauses=("{a} is {label} {b}", "{a} stands {label} {b}"),
        phrases={"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"},
        answers={"left": "To the left.", "right": "To the right.", "above": "Above it.", "below": "Below it."},
    ),
    "relative_size": Category(
        question="How large is {a} compared with {b}?",
        clauses=("{a} is {label} {b}", "{a}, {label} {b}, is shown"),
        phrases={"larger": "larger than", "smaller": "smaller than", "same": "as large as"},
        answers={"larger": "It is larger.", "smaller": "It is smaller.", "same": "They are of one size."},
    ),
    "colour": Category(
        question="What colour is the {shape}?",
        clauses=("there are {a} and {b}", "{a} and {b} are shown"),
        phrases={colour: colour for colour in COLOURS},
        answers=_sentences({colour: colour for colour in COLOURS}),
    ),
    "state": Category(
        question="What happens to the shapes?",
        clauses=("{a} {label}",),
        phrases={
            "appears": "appears",
            "disappears": "disappears",
            "changes": "turns",
            "grows": "grows",
            "shrinks": "shrinks",
            "stays": "stays as it is",
        },
        answers={
            "appears": "One appears.",
            "disappears": "One disappears.",
            "changes": "One changes its colour.",
            "grows": "One grows.",
            "shrinks": "One shrinks.",
            "stays": "Nothing happens.",
        },
    ),
    "motion": Category(
        question="How does {a} move?",
        clauses=("{a} {label}",),
        phrases={
            "sideways": "moves from side to side",
            "vertical": "moves up and down",
            "circle": "moves around in a circle",
            "zigzag": "moves in a zig-zag",
            "bounce": "bounces along",
            "still": "stays still",
        },
        answers={
            "sideways": "From side to side.",
            "vertical": "Up and down.",
            "circle": "Around in a circle.",
            "zigzag": "In a zig-zag.",
            "bounce": "It bounces along.",
            "still": "It does not move.",
        },
    ),
    "bounce_count": Category(
        question="How many times does {a} bounce?",
        clauses=("{a} bounces {label}", "{a} bounces along and touches the ground {label}"),
        phrases=TIMES,
        answers=_sentences(TIMES),
    ),
    "two_movers": Category(
        question="Which way does {a} move?",
        clauses=("{a} moves {label} and {b} moves {other}",),
        phrases=WAYS,
        answers=_sentences(WAYS),
    ),
}
TV_ALIGN = tuple(name for name in CATEGORIES if name not in ("bounce_count", "two_movers"))
FRAMINGS = ("{}", "in this clip {}", "in the video {}", "here {}")
OPTIONS = 4


def caption_of(scene: "Scene", draws: Draws) -> str:
    category = CATEGORIES[scene.category]
    one, *others = scene.things
    clause = category.clauses[draws.integer("clause", len(category.clauses))]
    label = category.phrases[scene.label]
    if scene.category == "counting":
        label = f"{label} {one.colour} {one.shape}{'s' * (len(scene.things) > 1)}"
    elif scene.category == "state":
        label += f" {one.colour_after}" * (scene.label == "changes")
        if others:
            label += f" next to {' and '.join(map(_a, others))}"
    other = WAYS.get(scene.other_label, "")
    told = clause.format(a=_a(one), b=_a(others[0]) if others else "", label=label, other=other)
    return _sentence(FRAMINGS[draws.integer("framing", len(FRAMINGS))].format(told))


def item_of(scene: "Scene", draws: Draws, id: str) -> Item:
    """The scene's question, with at most four options in drawn order."""
    category = CATEGORIES[scene.category]
    one, other = scene.things[0], scene.things[-1]
    wrong = sorted(
        (label for label in category.answers if label != scene.label), key=lambda x: draws.seed(f"wrong/{x}")
    )
    if scene.other_label:  # what is true of the other thing is the option that tells them apart
        wrong = [scene.other_label, *(label for label in wrong if label != scene.other_label)]
    options = tuple(category.answers[label] for label in [scene.label, *wrong[: OPTIONS - 1]])
    question = category.question.format(a=_the(one), b=_the(other), shape=one.shape)
    answer = category.answers[scene.label]
    return shuffled(Item(id, scene.category, caption_of(scene, draws), question, options, answer), draws.run_seed)


def colours_in(text: str) -> list[str]:
    """The colours a question names, in its order."""
    return re.findall(r"\b(" + "|".join(COLOURS) + r")\b", text)


def shape_in(text: str) -> str:
    return re.search("|".join(SHAPES), text)[0]


def _a(thing: "Thing") -> str:
    return f"a {thing.size + ' ' if thing.size else ''}{thing.colour} {thing.shape}"


def _the(thing: "Thing") -> str:
    return f"the {thing.colour} {thing.shape}"
