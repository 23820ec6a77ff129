"""Random access to the rows of a table of captions.

A table may have millions of rows, so it is not kept in memory (except .json). `scan` reads it once and gives a place
for each row; `at` reads the row at a place.
"""

import csv
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from data_tools.errors import DataError
from data_tools.texts import filled

TABLE_ENDINGS = (".csv", ".jsonl", ".json", ".parquet")
BOM = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """One row.

    Attributes:
        cells: column -> value, without empty cells.
        problem: why the row cannot be read; "" if it can.
    """

    cells: dict
    problem: str = ""


class Rows(Protocol):
    """The rows of a table.

    Attributes:
        columns: names of the columns.
    """

    columns: list[str]

    def scan(self) -> Iterator[tuple[int, Row]]:
        """Yield (place, row) for all rows, in order."""

    def at(self, place: int) -> Row:
        """The row at a place that `scan` gave."""


def open_rows(path: Path) -> Rows:
    """The rows of a table file, by its ending.

    Raises:
        DataError: the file cannot be read as a table.
    """
    kinds: dict[str, Callable[[Path], Rows]] = {
        ".csv": CsvRows,
        ".jsonl": JsonLines,
        ".json": JsonList,
        ".parquet": ParquetRows,
    }
    return kinds[path.suffix.lower()](path)


class CsvRows:
    """A .csv with a header. The place of a row is the offset of its first byte."""

    def __init__(self, path: Path):
        self.path = path
        with path.open("rb") as file:
            header = next((record for _, record in self._records(file)), [])
        self.columns = [column.strip() for column in header]

    def scan(self) -> Iterator[tuple[int, Row]]:
        with self.path.open("rb") as file:
            records = self._records(file)
            next(records, None)
            for place, record in records:
                yield place, self._row(record)

    def at(self, place: int) -> Row:
        with self.path.open("rb") as file:
            file.seek(place)
            return self._row(next(self._records(file))[1])

    def _row(self, record: list[str]) -> Row:
        fits = len(record) == len(self.columns)
        problem = "" if fits else "the row and the header differ in length: quote captions that have commas"
        return Row(filled(dict(zip(self.columns, record))), problem)

    def _records(self, file: BinaryIO) -> Iterator[tuple[int, list[str]]]:
        """Yield (offset, record) from the file's position on. Skips empty lines. Raises DataError."""
        at = file.tell()

        def lines() -> Iterator[str]:
            nonlocal at
            for line in file:
                start, at = at, at + len(line)
                yield (line.removeprefix(BOM) if start == 0 else line).decode("utf-8")

        reader = csv.reader(lines(), skipinitialspace=True)
        place = at
        try:
            for record in reader:
                if record:
                    yield place, record
                place = at
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.path} cannot be read as a UTF-8 CSV file: {error}") from None


class JsonLines:
    """A .jsonl, one object per line. The place of a row is the offset of its line. Rows may have different fields."""

    def __init__(self, path: Path):
        self.path = path
        self.columns = first_fields(row for _, row in self.scan())

    def scan(self) -> Iterator[tuple[int, Row]]:
        place = 0
        with self.path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield place, _json_row(line.removeprefix(BOM))
                place += len(line)

    def at(self, place: int) -> Row:
        with self.path.open("rb") as file:
            file.seek(place)
            return _json_row(file.readline().removeprefix(BOM))


class JsonList:
    """A .json with one list of objects, as LLaVA's annotations. Kept in memory; the place of a row is its number."""

    def __init__(self, path: Path):
        try:
            rows = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(f"{path} is not JSON: {error}") from None
        if not isinstance(rows, list):
            raise DataError(f"{path} is not a JSON list of rows: give one, or a .jsonl with one object per line")
        self._rows = [_object_row(row) for row in rows]
        self.columns = first_fields(self._rows)

    def scan(self) -> Iterator[tuple[int, Row]]:
        yield from enumerate(self._rows)

    def at(self, place: int) -> Row:
        return self._rows[place]


class ParquetRows:
    """A .parquet. The place of a row is its number. The last row group is cached, for reads of neighbouring rows."""

    def __init__(self, path: Path):
        self.path = path
        file = _open_parquet(path)
        self.columns = file.schema_arrow.names
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._starts = [0, *accumulate(counts)]

    def scan(self) -> Iterator[tuple[int, Row]]:
        file, place = _open_parquet(self.path), 0
        for batch in file.iter_batches(use_threads=False):
            for cells in batch.to_pylist():
                yield place, Row(filled(cells))
                place += 1

    def at(self, place: int) -> Row:
        group = bisect_right(self._starts, place) - 1
        (cells,) = _row_group(self.path, group).slice(place - self._starts[group], 1).to_pylist()
        return Row(filled(cells))


def first_fields(rows: Iterable[Row]) -> list[str]:
    """The fields of the first readable row; an empty list if there is none."""
    return next((list(row.cells) for row in rows if not row.problem), [])


def _json_row(line: bytes) -> Row:
    try:
        return _object_row(json.loads(line))
    except ValueError as error:
        return Row({}, f"the line is not JSON: {error}")


def _object_row(value: object) -> Row:
    return Row(filled(value)) if isinstance(value, dict) else Row({}, "the row is not a JSON object")


def _open_parquet(path: Path):
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path} needs pyarrow, which is not installed: pip install 'vtok[parquet]'") from None
    try:
        return pyarrow.parquet.ParquetFile(os.fspath(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None


@lru_cache(maxsize=1)
def _row_group(path: Path, group: int):
    return _open_parquet(path).read_row_group(group, use_threads=False)
