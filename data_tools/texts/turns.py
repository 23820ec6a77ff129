"""Conversations about a clip → (question, answer) pairs.

[{"from": "human", "value": "<video>\\nWhat is this?"}, {"from": "gpt", "value": "A dog."}, …]     LLaVA
[{"role": "user", "content": "What is this?"}, {"role": "assistant", "content": "A dog."}, …]      messages
{"from": ["human", "gpt", …], "value": ["What is this?", "A dog.", …]}                             Hugging Face
[["What is this?", "A dog."], …]                                                                   our shards

The content of a message may be a list of typed parts: {"type": "text", "text": …}, {"type": "video"} and the like. A
question shows a medium by such a part, or by the word <video> or <image> in a string. In an answer, and in a text among
typed parts, these words are text.
"""

import math
import re
from decimal import Decimal
from typing import Any, NamedTuple

from data_tools.errors import BadVideo
from data_tools.texts.reading import decoded, json_value

Pair = tuple[str, str]

ASKING, ANSWERING, IGNORED = ("human", "user"), ("gpt", "assistant"), ("system",)
MEDIA = ("video", "image")
_PLACEHOLDERS = re.compile(r"\s*<(?:image|video)>\s*")
_PLACEHOLDER = re.compile(r"<(image|video)>\n?")


class Shown(NamedTuple):
    """A medium in a question.

    Attributes:
        kind: "video" or "image", as the conversation calls it.
        turn: the number of the question.
        at: the number of characters of the question before it.
    """

    kind: str
    turn: int
    at: int


def pairs_of(value: Any, field: str) -> list[Pair]:
    """The (question, answer) pairs of a conversation, without system turns and without what they show.

    Args:
        value: the conversation in one of the forms above, or as JSON in a string.
        field: names it in errors.

    Raises:
        BadVideo: it has another form, or a text in it is empty.
    """
    return _filled([(_joined(asked), told) for asked, told in _asked_and_told(value, field)], field)


def shown_in(value: Any, field: str) -> tuple[list[Pair], list[Shown]]:
    """The pairs of a conversation as in `pairs_of`, and what its questions show, in order.

    All that is behind a medium, but a line break, stays where it is. Arguments and errors as in `pairs_of`.
    """
    pairs: list[Pair] = []
    shown: list[Shown] = []
    for turn, (asked, told) in enumerate(_asked_and_told(value, field)):
        question, places = placed(asked)
        pairs.append((question, told))
        shown += [Shown(kind, turn, at) for kind, at in places]
    return _filled(pairs, field), shown


def placed(content: Any) -> tuple[str, list[tuple[str, int]]]:
    """The text of a question, and (kind, number of characters before it) of each medium in it. Raises BadVideo."""
    parts = content if isinstance(content, list) else _parts(text_of(content))
    texts, places, length = [], [], 0
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
            length += len(texts[-1])
        elif kind == "text":
            text_of(part.get("text"))
        elif medium := next((name for name in MEDIA if str(kind).startswith(name)), None):
            places.append((medium, length))
    whole = "".join(texts)
    text = text_of(whole)
    left = whole.find(text)
    return text, [(kind, min(max(at - left, 0), len(text))) for kind, at in places]


def text_of(value: Any, reason: str = "bad_conversations", numbers: bool = True) -> str:
    """The text of a field; a number is one if `numbers`. Raises BadVideo with `reason`."""
    if numbers and isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value):
        return str(int(value)) if value % 1 == 0 else str(value)
    if isinstance(value, bytes):  # a text column of a Parquet that another program did not mark as such
        value = decoded(value, "the text", reason)
    if not isinstance(value, str):
        raise BadVideo(reason, f"a text is wanted where there is {brief(value)}")
    if "\0" in value:
        raise BadVideo("bad_text", "a text holds a zero byte: remove it")
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


def _asked_and_told(value: Any, field: str) -> list[tuple[Any, str]]:
    """(content of a question, its answer) of a conversation. Raises BadVideo if the turns do not alternate."""
    value = from_json(value)
    if isinstance(value, dict):
        value = _rows_of(value)
    if not isinstance(value, list):
        raise BadVideo("bad_conversations", f"`{field}` is not a list of turns")
    if value and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        return [([{"type": "text", "text": text_of(question)}], text_of(answer)) for question, answer in value]
    said = [(speaker, content) for speaker, content in (_turn(turn, field) for turn in value) if speaker not in IGNORED]
    asked, answered = said[::2], said[1::2]
    alternate = all(speaker in ASKING for speaker, _ in asked) and all(speaker in ANSWERING for speaker, _ in answered)
    if not said or len(asked) != len(answered) or not alternate:
        raise BadVideo("bad_conversations", f"the turns of `{field}` do not alternate between human and gpt")
    return [(question, _text_in(answer)) for (_, question), (_, answer) in zip(asked, answered)]


def _turn(turn: Any, field: str) -> tuple[str, Any]:
    """(speaker, content) of one turn. Raises BadVideo."""
    try:
        speaker, said = (turn[name] for name in (("from", "value") if "from" in turn else ("role", "content")))
    except (TypeError, KeyError):
        forms = '{"from": …, "value": …} or {"role": …, "content": …}'
        raise BadVideo("bad_conversations", f"`{field}` holds {brief(turn)}, which is not {forms}") from None
    return str(speaker), said


def _joined(content: Any) -> str:
    """The text of a question without what it shows. Raises BadVideo."""
    text = _text_in(content)
    return text if isinstance(content, list) else _PLACEHOLDERS.sub(" ", text).strip()


def _text_in(content: Any) -> str:
    """The text of a message; its parts that are text, a line each. Raises BadVideo."""
    if not isinstance(content, list):
        return text_of(content)
    texts = (part for part in content if isinstance(part, dict) and part.get("type") == "text")
    return "\n".join(text_of(part.get("text")) for part in texts)


def _parts(text: str) -> list[dict]:
    """A string with <video> and <image> as typed parts."""
    pieces = _PLACEHOLDER.split(text)
    return [{"type": piece} if number % 2 else {"type": "text", "text": piece} for number, piece in enumerate(pieces)]


def _filled(pairs: list[Pair], field: str) -> list[Pair]:
    """The pairs. Raises BadVideo if a text is empty."""
    if not all(map(all, pairs)):
        raise BadVideo("bad_conversations", f"`{field}` holds an empty question or answer")
    return pairs
