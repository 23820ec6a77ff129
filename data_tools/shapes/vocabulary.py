"""The vocabulary of the shapes world: shapes, colours, and the categories with their labels, phrases and answers."""

import re
from dataclasses import dataclass

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
DOWN = ("top", "upper", "middle", "lower", "bottom")
ACROSS = ("far left", "left", "centre", "right", "far right")
TIMES = {"1": "once", "2": "twice", "3": "three times", "4": "four times"}


@dataclass(frozen=True)
class Category:
    """One kind of question, and the words for each of its labels.

    Attributes:
        question: the question. `{a}` is the thing asked about, `{b}` the other thing, `{shape}` the shape of `{a}`.
        clauses: wordings of the caption's statement; `{label}` is the label's phrase.
        phrases: label -> phrase in a caption.
        answers: label -> answer to the question.
    """

    question: str
    clauses: tuple[str, ...]
    phrases: dict[str, str]
    answers: dict[str, str]


def sentence(text: str) -> str:
    """The words with a capital and a full stop."""
    return text[0].upper() + text[1:] + "."


def _sentences(phrases: dict[str, str]) -> dict[str, str]:
    return {label: sentence(phrase) for label, phrase in phrases.items()}


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


def colours_in(text: str) -> list[str]:
    """The colour names in a text, in order."""
    return re.findall(r"\b(" + "|".join(COLOURS) + r")\b", text)


def shape_in(text: str) -> str:
    """The first shape name in a text that has one."""
    return re.findall("|".join(SHAPES), text)[0]
