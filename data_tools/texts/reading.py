"""Bytes to text and to JSON values. What cannot be read is a BadVideo that names the place."""

import codecs
import json
import math
from pathlib import Path
from typing import Any

from data_tools.errors import BadVideo, DataError

# The mark of UTF-16 begins the mark of UTF-32: the longer ones come first.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# RFC 8259 has neither NaN nor Infinity, which Python's parser accepts: they become null.
_DECODER = json.JSONDecoder(parse_constant=lambda name: None)


def encoding_of(head: bytes) -> str:
    """The encoding that the byte order mark at the beginning of a text names; UTF-8 without a mark."""
    return next((name for mark, name in MARKS if head.startswith(mark)), "utf-8")


def decoded(body: bytes, where: str, reason: str = "bad_text") -> str:
    """The text without a byte order mark and without space around it.

    Args:
        body: UTF-8, or UTF-16 or UTF-32 with a byte order mark.
        where: names the text in errors.
        reason: of the error.

    Raises:
        BadVideo: the bytes are no text in this encoding.
    """
    encoding = encoding_of(body)
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        number = 1 + body.count(b"\n", 0, error.start)
        line = f", line {number}" if b"\n" in body.rstrip() else ""
        named = not_utf8(f"{where}{line}", body[error.start])
        raise BadVideo(reason, named if encoding == "utf-8" else f"{where}: {error}") from None
    if "\0" in text:
        raise BadVideo(reason, f"{where} holds zero bytes, as UTF-16 without a mark does: save it as UTF-8")
    return text.lstrip("\ufeff").strip()


def not_utf8(where: str, byte: int) -> str:
    """Says which byte of a text is not UTF-8, and what to do."""
    return f"{where}: byte 0x{byte:02x} is not UTF-8: save the file as UTF-8 (a Windows program may have written it)"


def text_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, with or without a mark. They end at line feeds and carriage returns only.

    `str.splitlines` would also end them at characters that a caption or a JSON string may hold, such as U+2028.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            return [line.rstrip("\n") for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def json_value(text: str) -> Any:
    """The value of a JSON text; NaN and Infinity become None. Raises ValueError."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_object(body: bytes, where: str) -> dict:
    """The JSON object in `body`; {} if it is blank. Raises BadVideo, which names `where`."""
    text = decoded(body, where, "bad_meta")
    try:
        value = json_value(text) if text else {}
    except ValueError as error:
        raise BadVideo("bad_meta", f"{where}: {error}") from None
    if not isinstance(value, dict):
        raise BadVideo("bad_meta", f"{where} is not a JSON object")
    return value


def plain(value: Any) -> Any:
    """The value as JSON knows it: dates and the like become strings; NaN and infinite numbers become None."""
    return _DECODER.decode(json.dumps(value, default=str))


def filled(cells: dict) -> dict:
    """The fields without empty ones: None, blank strings and NaN, by which tables mark an empty cell."""
    return {name: value for name, value in cells.items() if not _is_empty(value)}


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))
