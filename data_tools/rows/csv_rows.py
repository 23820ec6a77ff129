"""The rows of a .csv or .tsv.

Its delimiter is the one of "," ";" tab and "|" that gives the header most columns. A record with wrong quotes costs its
own line only: reading goes on at the next line, where a lenient reader would take all lines up to the next quote for
one cell.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from data_tools.errors import DataError
from data_tools.rows.row import Row, TextRows
from data_tools.shards.samples import MEDIA_ENDINGS
from data_tools.texts import filled
from data_tools.texts.reading import not_utf8

DELIMITERS = ",;\t|"  # the first wins where several do as well
QUOTES = "close it, or double the quotes inside a cell"
csv.field_size_limit(2**31 - 1)  # its default, 131072 characters, would end the table at a long cell


class _Record(NamedTuple):
    """A record, or a line that is none.

    Attributes:
        place: offset of its first byte.
        line: number of its first line, from 1.
        cells: the cells.
        problem: why it is no record; "" if it is one.
    """

    place: int
    line: int
    cells: list[str]
    problem: str


class CsvRows(TextRows):
    """See `Rows`. The place of a row is the offset of its first byte.

    Raises:
        DataError: there is no header in UTF-8, it names a column twice, or lines end with carriage returns alone.
    """

    def __init__(self, path: Path):
        super().__init__(path)
        with self._text.open() as file:
            head = next((line for line in file if line.strip()), b"").decode("utf-8", "surrogateescape")
            if "\r" in head.rstrip("\r\n"):
                raise DataError(f"{path}: its lines end with carriage returns alone: save it with line feeds")
            self._delimiter = max(DELIMITERS, key=lambda delimiter: len(_split(head, delimiter)))
        with self._text.open() as file:
            header = next(self._records(file), None)
        if header and header.problem:
            raise DataError(f"{path}, line {header.line}: the header cannot be read: {header.problem}")
        self.columns = [column.strip() for column in header.cells] if header else []
        if twice := next((name for name in self.columns if name and self.columns.count(name) > 1), ""):
            raise DataError(f"{path} has two columns {twice}: rename one, or leave it out")

    def _rows(self, file: BinaryIO) -> Iterator[tuple[int, Row]]:
        records = self._records(file)
        next(records, None)
        for record in records:
            yield record.place, self._row(record)

    def _row_at(self, file: BinaryIO) -> Row:
        return self._row(next(self._records(file)))

    def _row(self, record: _Record) -> Row:
        problem = record.problem
        if not problem and len(record.cells) != len(self.columns):
            problem = (
                f"it has {len(record.cells)} cells, the header has {len(self.columns)}: quote captions that have "
                f"{self._delimiter!r}"
            )
        return Row(filled(dict(zip(self.columns, record.cells))), problem and f"line {record.line}: {problem}")

    def _records(self, file: BinaryIO) -> Iterator[_Record]:
        """Yield the records from the file's position on, without empty lines."""
        place = at = file.tell()  # of the record, of the next line
        first = line = 1

        def lines() -> Iterator[str]:
            nonlocal at, line
            for text in file:
                at, line = at + len(text), line + 1
                yield text.decode("utf-8", "surrogateescape")

        reader = self._reader(lines())
        while True:
            problem, cells = "", []
            try:
                cells = next(reader)
                if line - first > 1 and self._swallowed(cells):
                    problem = f"a quote opens here and closes in another row: {QUOTES}"
            except StopIteration:
                return
            except csv.Error as error:
                lone = "new-line" in str(error)
                problem = (
                    "it holds a lone carriage return" if lone else f"a quote is not closed at a cell's end: {QUOTES}"
                )
            if problem:  # go on behind its first line
                file.seek(place)
                text = file.readline()
                at, line = place + len(text), first + 1
                cells = _split(text.decode("utf-8", "surrogateescape"), self._delimiter)
                reader = self._reader(lines())
            elif foreign := next((byte for cell in cells for byte in cell if "\udc80" <= byte <= "\udcff"), ""):
                problem = not_utf8("its text", ord(foreign) - 0xDC00)
            if cells:
                yield _Record(place, first, cells, problem)
            place, first = at, line

    def _reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        return csv.reader(lines, skipinitialspace=self._delimiter != "\t", strict=True, delimiter=self._delimiter)

    def _swallowed(self, cells: list[str]) -> bool:
        """Whether a cell of several lines holds a row: a line with as many cells as the header, one of them a video."""
        inner = (line for cell in cells for line in cell.split("\n")[1:])
        rows = (_split(line, self._delimiter) for line in inner)
        return any(len(row) == len(self.columns) > 1 and any(map(_names_video, row)) for row in rows)


def _split(line: str, delimiter: str) -> list[str]:
    """The cells of one line; quotes may be wrong."""
    return next(csv.reader(io.StringIO(line.split("\n")[0]), delimiter=delimiter), [])


def _names_video(cell: str) -> bool:
    return cell.rpartition(".")[2].strip().lower() in MEDIA_ENDINGS and "." in cell
