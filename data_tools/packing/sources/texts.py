"""The texts of a clip, from the fields of the input.

Training draws one of `captions` if there are several, else it takes `caption`. It asks `question` and expects
`answer`. `conversations` holds all question-answer pairs if there are several. Inputs may have LLaVA's form:

    [{"from": "human", "value": "<video>\\nWhat is this?"}, {"from": "gpt", "value": "A dog."}, …]
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_tools.errors import BadVideo
from data_tools.packing.sources.clip import Columns

RESERVED_FIELDS = ("facts",)
PLACEHOLDERS = re.compile(r"\s*<(?:image|video)>\s*")

Pair = tuple[str, str]


def describe(name: str, rows: Sequence[dict], columns: Columns) -> dict:
    """The meta of a clip: the texts of all its rows, and the other fields of the first row.

    Without a caption, the first answer is the caption.

    Args:
        name: stored as "path".
        rows: the clip's rows, as field -> value.
        columns: names of the fields.

    Raises:
        BadVideo: a text is missing or invalid.
    """
    captions = _unique(text for row in rows for text in _captions(row.get(columns.caption)))
    wordings = _unique(text for row in rows for text in _wordings(row.get("captions")))
    pairs = _unique(pair for row in rows for pair in _pairs(row))
    texts = captions or wordings or [answer for _, answer in pairs]
    if not texts:
        raise BadVideo("no_caption", "the caption is missing or empty")
    known = {columns.video, columns.caption, "path", "caption", "captions", "conversations", *RESERVED_FIELDS}
    meta = {field: value for field, value in rows[0].items() if field not in known}
    meta |= {"path": name, "caption": texts[0]}
    if wordings or len(captions) > 1:
        meta["captions"] = wordings or captions
    if pairs:
        meta["question"], meta["answer"] = pairs[0]
    if len(pairs) > 1 or any("conversations" in row for row in rows):
        meta["conversations"] = [list(pair) for pair in pairs]
    return meta


def filled(cells: dict) -> dict:
    """The fields without empty ones: None, "" and NaN, by which tables mark an empty cell."""
    return {name: value for name, value in cells.items() if value not in (None, "") and value == value}


def read_text(path: Path) -> str:
    """The stripped text of a small file; "" if there is no file. Raises BadVideo if it is not UTF-8."""
    return decoded_text(path.read_bytes() if path.is_file() else b"", str(path))


def decoded_text(body: bytes, where: str) -> str:
    """The stripped text. Raises BadVideo, which names `where`, if it is not UTF-8."""
    try:
        return body.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadVideo("bad_text", f"{where} is not UTF-8: {error}") from None


def read_fields(path: Path) -> dict:
    """The JSON object in a small file; {} if there is no file. Raises BadVideo."""
    return json_object(read_text(path) or "{}", str(path))


def json_object(text: str | bytes, where: str) -> dict:
    """The JSON object. Raises BadVideo, which names `where`, if the text is no object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadVideo("bad_meta", f"{where}: {error}") from None
    if not isinstance(value, dict):
        raise BadVideo("bad_meta", f"{where} is not a JSON object")
    return value


def _captions(value: Any) -> list[str]:
    """The captions in one cell: a string, or a list of strings as .jsonl and .parquet may hold. Raises BadVideo."""
    texts = value if isinstance(value, list) else [value]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise BadVideo("bad_caption", "the caption is not a string")
    return [_text(text) for text in texts if text and text.strip()]


def _wordings(cell: Any) -> list[str]:
    """The captions in the field `captions`: a list, or one written as JSON. Raises BadVideo."""
    wordings = _decoded(cell)
    if wordings is None:
        return []
    if not isinstance(wordings, list) or not wordings or not all(isinstance(text, str) for text in wordings):
        raise BadVideo("bad_captions", "`captions` is not a JSON list of strings")
    return [_text(text) for text in wordings]


def _pairs(row: dict) -> list[Pair]:
    """The (question, answer) pairs of a row. Raises BadVideo."""
    question, answer = row.get("question"), row.get("answer")
    asked = [(_text(question), _text(answer))] if isinstance(question, str) and isinstance(answer, str) else []
    return asked + _turns(row.get("conversations"))


def _turns(cell: Any) -> list[Pair]:
    """The (question, answer) pairs of a conversation in LLaVA's form, without system turns. Raises BadVideo."""
    turns = _decoded(cell)
    if turns is None:
        return []
    try:
        said = [(turn["from"], _text(PLACEHOLDERS.sub(" ", turn["value"])).strip()) for turn in turns]
    except (TypeError, KeyError):
        raise BadVideo("bad_conversations", '`conversations` is not a list of {"from": …, "value": …}') from None
    said = [(speaker, text) for speaker, text in said if speaker != "system"]
    pairs = [(question, answer) for (_, question), (_, answer) in zip(said[::2], said[1::2])]
    if [speaker for speaker, _ in said] != ["human", "gpt"] * len(pairs) or not pairs:
        raise BadVideo("bad_conversations", "the turns of `conversations` do not alternate between human and gpt")
    return pairs


def _decoded(cell: Any) -> Any:
    """The cell, parsed from JSON if it is a string; "" if it does not parse."""
    if not isinstance(cell, str):
        return cell
    try:
        return json.loads(cell)
    except ValueError:
        return ""


def _text(text: str) -> str:
    """The text. Raises BadVideo if UTF-8 cannot encode it."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadVideo("bad_text", "a text holds half a surrogate pair, which UTF-8 cannot encode")
    return text


def _unique(values: Iterable) -> list:
    """The values in order, each once."""
    return list(dict.fromkeys(values))
