"""Conversations about a clip → (question, answer) pairs.

[{"from": "human", "value": "<video>\\nWhat is this?"}, {"from": "gpt", "value": "A dog."}, …]     LLaVA
[{"role": "user", "content": "What is this?"}, {"role": "assistant", "content": "A dog."}, …]      messages
{"from": ["human", "gpt", …], "value": ["What is this?", "A dog.", …]}                             Hugging Face
[["What is this?", "A dog."], …]                                                                   our shards
"""

import math
import re
from decimal import Decimal
from typing import Any

from data_tools.errors import BadVideo
from data_tools.texts.reading import json_value

Pair = tuple[str, str]

ASKING, ANSWERING, IGNORED = ("human", "user"), ("gpt", "assistant"), ("system",)
_PLACEHOLDERS = re.compile(r"\s*<(?:image|video)>\s*")


def pairs_of(value: Any, field: str) -> list[Pair]:
    """The (question, answer) pairs of a conversation, without system turns.

    Args:
        value: the conversation in one of the forms above, or as JSON in a string.
        field: names it in errors.

    Raises:
        BadVideo: it has another form, or a text in it is empty.
    """
    value = from_json(value)
    if isinstance(value, dict):
        value = _rows_of(value)
    if not isinstance(value, list):
        raise BadVideo("bad_conversations", f"`{field}` is not a list of turns")
    if value and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        pairs = [(text_of(question), text_of(answer)) for question, answer in value]
    else:
        pairs = _alternating([_turn(turn, field) for turn in value], field)
    if not all(map(all, pairs)):
        raise BadVideo("bad_conversations", f"`{field}` holds an empty question or answer")
    return pairs


def text_of(value: Any, reason: str = "bad_conversations", numbers: bool = True) -> str:
    """The text of a field; a number is one if `numbers`. Raises BadVideo with `reason`."""
    if numbers and isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value):
        return str(int(value)) if value % 1 == 0 else str(value)
    if not isinstance(value, str):
        raise BadVideo(reason, f"a text is wanted where there is {brief(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadVideo("bad_text", "a text holds half a surrogate pair, which UTF-8 cannot encode")
    return value.lstrip("\ufeff").strip()


def from_json(value: Any) -> Any:
    """The value of a string that holds JSON; any other value unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json_value(value)
    except ValueError:
        return value


def brief(value: Any) -> str:
    """A value in an error message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _rows_of(columns: dict) -> list[dict]:
    """Turns that are stored as a list for each field, as `datasets.Sequence` does."""
    lists = [value for value in columns.values() if isinstance(value, list)]
    if len(lists) < len(columns) or len(set(map(len, lists))) != 1:
        return [columns]
    return [dict(zip(columns, values)) for values in zip(*lists)]


def _turn(turn: Any, field: str) -> Pair:
    """(speaker, text) of one turn. Raises BadVideo."""
    try:
        speaker, said = (turn[name] for name in (("from", "value") if "from" in turn else ("role", "content")))
    except (TypeError, KeyError):
        forms = '{"from": …, "value": …} or {"role": …, "content": …}'
        raise BadVideo("bad_conversations", f"`{field}` holds {brief(turn)}, which is not {forms}") from None
    if isinstance(said, list):  # typed parts; those of other kinds stand for the clip
        said = "\n".join(
            text_of(part.get("text")) for part in said if isinstance(part, dict) and part.get("type") == "text"
        )
    text = text_of(said)
    return str(speaker), _PLACEHOLDERS.sub(" ", text).strip() if speaker in ASKING else text


def _alternating(said: list[Pair], field: str) -> list[Pair]:
    """The pairs of (speaker, text) turns. Raises BadVideo if they do not alternate."""
    said = [(speaker, text) for speaker, text in said if speaker not in IGNORED]
    asked, answered = said[::2], said[1::2]
    alternate = all(speaker in ASKING for speaker, _ in asked) and all(speaker in ANSWERING for speaker, _ in answered)
    if not said or len(asked) != len(answered) or not alternate:
        raise BadVideo("bad_conversations", f"the turns of `{field}` do not alternate between human and gpt")
    return [(question, answer) for (_, question), (_, answer) in zip(asked, answered)]
