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
