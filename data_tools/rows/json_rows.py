"""The rows of a .jsonl and of a .json. Rows may have different fields."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from data_tools.errors import BadVideo, DataError
from data_tools.rows.row import Row, TextRows
from data_tools.texts import decoded, filled, json_value


class JsonLines(TextRows):
    """A .jsonl, one object per line. The place of a row is the offset of its line."""

    def _rows(self, file: BinaryIO) -> Iterator[tuple[int, Row]]:
        place = file.tell()
        for number, line in enumerate(file, 1):
            if line.strip():
                yield place, _row_of(line, number)
            place += len(line)

    def _row_at(self, file: BinaryIO) -> Row:
        return _row_of(file.readline(), 1)


class JsonList:
    """A .json with one list of objects, as LLaVA's annotations. Kept in memory; the place of a row is its number.

    Raises:
        DataError: the file is not JSON, or no list.
    """

    embedded: frozenset[str] = frozenset()

    def __init__(self, path: Path):
        try:
            rows = json_value(decoded(path.read_bytes(), str(path)))
        except BadVideo as problem:
            raise DataError(problem.detail) from None
        except ValueError as error:
            hint = ": a table with one object per line is a .jsonl" if "Extra data" in str(error) else ""
            raise DataError(f"{path} is not JSON: {error}{hint}") from None
        if not isinstance(rows, list):
            raise DataError(f"{path} is not a JSON list of rows: give one, or a .jsonl with one object per line")
        self.columns: list[str] = []
        self._rows = [_object_row(row) for row in rows]

    def scan(self) -> Iterator[tuple[int, Row]]:
        """See `Rows`."""
        yield from enumerate(self._rows)

    def at(self, place: int) -> Row:
        """See `Rows`."""
        return self._rows[place]


def _row_of(line: bytes, number: int) -> Row:
    """The row in line `number`."""
    try:
        row = _object_row(json_value(decoded(line, "its text")))
    except BadVideo as problem:
        row = Row({}, problem.detail)
    except ValueError as error:
        row = Row({}, f"it is not JSON: {error}")
    return row._replace(problem=row.problem and f"line {number}: {row.problem}")


def _object_row(value: object) -> Row:
    return Row(filled(value)) if isinstance(value, dict) else Row({}, "the row is not a JSON object")
