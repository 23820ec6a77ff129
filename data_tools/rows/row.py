"""What a row is, and the text of a table."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from data_tools.errors import DataError
from data_tools.texts.reading import encoding_of


class Row(NamedTuple):
    """One row.

    Attributes:
        cells: column → value, without empty cells.
        problem: why the row cannot be read; "" if it can.
    """

    cells: dict
    problem: str = ""


class Rows(Protocol):
    """The rows of a table.

    Attributes:
        columns: names of the columns, if the table names them apart from its rows.
        embedded: names of the columns that hold files, not only their names. `scan` leaves the files out.
    """

    columns: list[str]
    embedded: frozenset[str]

    def scan(self) -> Iterator[tuple[int, Row]]:
        """Yield (place, row) for all rows, in order."""

    def at(self, place: int) -> Row:
        """The row at a place that `scan` gave."""


class TableText:
    """A table's text as UTF-8, without a byte order mark, for reading at any offset.

    Raises:
        DataError: the file is not what its byte order mark says, or is UTF-16 without one.
    """

    def __init__(self, path: Path):
        self._path, self._recoded = path, b""
        with path.open("rb") as file:
            head = file.read(1 << 12)
        encoding = encoding_of(head)
        self._skipped = 3 if encoding == "utf-8-sig" else 0
        if encoding in ("utf-16", "utf-32"):
            try:
                self._recoded = path.read_bytes().decode(encoding).encode()
            except UnicodeError as error:
                raise DataError(f"{path} cannot be read as {encoding.upper()}: {error}: save it as UTF-8") from None
        elif b"\0" in head:
            raise DataError(f"{path} holds zero bytes, as UTF-16 without a mark does: save it as UTF-8")

    def open(self, place: int = 0) -> BinaryIO:
        """The file, at an offset; 0 is the first character."""
        file = io.BytesIO(self._recoded) if self._recoded else self._path.open("rb")
        file.seek(place or self._skipped)
        return file


class TextRows:
    """The rows of a text table: the part of `Rows` that is the same for all formats. A place is a byte offset.

    Raises:
        DataError: as `TableText`.
    """

    embedded: frozenset[str] = frozenset()

    def __init__(self, path: Path):
        self.path = path
        self.columns: list[str] = []
        self._text = TableText(path)
        self._bad: dict[int, Row] = {}  # found by `scan`, which knows their lines

    def scan(self) -> Iterator[tuple[int, Row]]:
        """See `Rows`."""
        with self._text.open() as file:
            for place, row in self._rows(file):
                if row.problem:
                    self._bad[place] = row
                yield place, row

    def at(self, place: int) -> Row:
        """See `Rows`."""
        if place in self._bad:
            return self._bad[place]
        with self._text.open(place) as file:
            return self._row_at(file)

    def _rows(self, file: BinaryIO) -> Iterator[tuple[int, Row]]:
        """Yield (place, row) for all rows of the opened table."""
        raise NotImplementedError

    def _row_at(self, file: BinaryIO) -> Row:
        """The row that begins at the file's position."""
        raise NotImplementedError
