"""Lettered options of a multiple-choice question, and the option that a reply names."""

import re
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# The text that asks for a letter.
PROMPT = "{question}\n{options}\nAnswer with the letter of the right option only."


def listed(options: Sequence[str]) -> str:
    """Returns the options, each on a line with its letter."""
    return "\n".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options))


def parse_letter(reply: str, options: Sequence[str]) -> str | None:
    """Returns the letter of the option that a reply names by its letter, its text, or both in agreement.

    Returns ``None`` if the reply names no option, several, or says anything else.

    >>> parse_letter("(B) Two.", ("One.", "Two."))
    'B'
    >>> parse_letter("A or B", ("One.", "Two.")) is None
    True
    """
    words, texts = " ".join(reply.split()), [bare(option) for option in options]
    if texts.count(bare(words)) == 1:
        return LETTERS[texts.index(bare(words))]
    match = re.fullmatch(r"\(?([A-Z])(?:[.:)]+\s*(.*)|\s*)", words)
    if not match or (place := LETTERS.index(match[1])) >= len(options):
        return None
    return match[1] if bare(match[2] or "") in ("", texts[place]) else None


def parse_option(reply: str, options: Sequence[str]) -> str | None:
    """Returns the text of the option that :func:`parse_letter` finds, or ``None``."""
    letter = parse_letter(reply, options)
    return None if letter is None else options[LETTERS.index(letter)]


def bare(text: str) -> str:
    """Returns a text without its full stop, in lower case."""
    return text.rstrip(".").casefold()
