"""`rejected.jsonl`: one JSON object per rejected clip, {"path", "reason", "detail", …}."""

import json
from collections.abc import Iterable
from pathlib import Path

from data_tools.errors import DataError
from data_tools.shards.layout import atomic_write

REJECTED = "rejected.jsonl"


def read_rejected(path: Path) -> list[dict]:
    """The lines of a file; an empty list if there is no file.

    Raises:
        DataError: a line is not an object with a reason.
    """
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [_parsed(path, number, line) for number, line in enumerate(lines, 1)]


def write_rejected(path: Path, lines: Iterable[dict]) -> None:
    """Write all lines, atomically."""
    with atomic_write(path) as file:
        for line in lines:
            # A file name that is not UTF-8 contains surrogates, which must be written as escapes.
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def _parsed(path: Path, number: int, line: bytes) -> dict:
    try:
        parsed = json.loads(line)
        parsed["reason"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}, line {number}: not a JSON object with a reason: delete the line") from None
    return parsed
