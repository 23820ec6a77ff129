"""Proves of a file of items that it is balanced, repeats nothing, and tells nobody the answers who sees no video."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from data_tools.items import Item

MARGIN = 5  # points above or below chance that a guess from the text alone may reach


@dataclass(frozen=True)
class Proof:
    """What was found.

    Attributes:
        counts: Items of each category.
        repeats: Items whose prompt stands before in the file.
        places: How often the answer stands at each place.
        guesses: Share of right answers, in 0..1, of each guess from the text alone.
        chance: Share of a random guess.
    """

    counts: dict[str, int]
    repeats: int
    places: dict[int, int]
    guesses: dict[str, float]
    chance: float

    @property
    def faults(self) -> list[str]:
        """What is wrong, in words; empty if nothing is."""
        found = []
        if len(set(self.counts.values())) > 1:
            found.append(f"the categories differ in size: {self.counts}")
        if self.repeats:
            found.append(f"{self.repeats} prompts are repeated")
        for name, share in self.guesses.items():
            if abs(share - self.chance) > MARGIN / 100:
                found.append(f"the guess {name!r} is right in {100 * share:.1f} %, chance is {100 * self.chance:.1f} %")
        return found


def prove(items: list[Item]) -> Proof:
    """Counts, and guesses every answer in several ways that see no video.

    The guess ``best_possible`` knows how often each option is right among all items with this very question and these
    options. No model, no prior and no knowledge that sees only question and options is better on these items.
    """
    prompts = Counter(item.prompt for item in items)
    shares = {
        name: sum(guess(item) == item.answer for item in items) / len(items) for name, guess in guesses(items).items()
    }
    groups = defaultdict(Counter)
    for item in items:
        groups[item.question, item.options][item.answer] += 1
    shares["best_possible"] = sum(max(counts.values()) for counts in groups.values()) / len(items)
    return Proof(
        dict(Counter(item.category for item in items)),
        len(items) - len(prompts),
        dict(sorted(Counter(item.options.index(item.answer) for item in items).items())),
        shares,
        float(sum(Fraction(1, len(item.options)) for item in items) / len(items)),
    )


def guesses(items: list[Item]) -> dict[str, Callable[[Item], str]]:
    """Returns ways to guess an answer from question and options: by place, length, frequency, and words."""
    frequent = {
        category: Counter(item.answer for item in items if item.category == category)
        for category in {item.category for item in items}
    }
    return {
        "first": lambda item: item.options[0],
        "last": lambda item: item.options[-1],
        "longest": lambda item: max(item.options, key=len),
        "shortest": lambda item: min(item.options, key=len),
        "commonest_answer": lambda item: max(item.options, key=lambda option: frequent[item.category][option]),
        "shares_words_with_question": lambda item: max(item.options, key=lambda option: common(option, item.question)),
    }


def common(option: str, question: str) -> int:
    """Returns the number of words that an option shares with the question."""
    return len(set(re.findall(r"\w+", option.lower())) & set(re.findall(r"\w+", question.lower())))
