"""Random access to the rows of a table of captions.

A table may have millions of rows, so it is not kept in memory (except .json, and text in UTF-16). `scan` reads it once
and gives a place for each row; `at` reads the row at a place. A row that cannot be read has a problem; the others are
not affected.

row.py            what a row is, and the text of a table
csv_rows.py       .csv and .tsv
json_rows.py      .jsonl and .json
parquet_rows.py   .parquet, also with the videos inside
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from data_tools.errors import DataError
from data_tools.rows.csv_rows import CsvRows
from data_tools.rows.json_rows import JsonLines, JsonList
from data_tools.rows.parquet_rows import ParquetRows
from data_tools.rows.row import Row, Rows

__all__ = ["TABLE_ENDINGS", "Row", "Rows", "open_rows", "read_rows"]

KINDS: dict[str, Callable[[Path], Rows]] = {
    ".csv": CsvRows,
    ".tsv": CsvRows,
    ".jsonl": JsonLines,
    ".json": JsonList,
    ".parquet": ParquetRows,
}
TABLE_ENDINGS = tuple(KINDS)


def open_rows(path: Path) -> Rows:
    """The rows of a table file, by its ending.

    Raises:
        DataError: the file cannot be read as a table.
    """
    if path.suffix.lower() not in KINDS:
        raise DataError(f"{path} is no table: give a {', '.join(TABLE_ENDINGS)}")
    try:
        return KINDS[path.suffix.lower()](path)
    except OSError as error:
        raise DataError(f"cannot read the table {path}: {error.strerror}") from error


def read_rows(path: Path, columns: Sequence[str]) -> tuple[str, list[dict]]:
    """The first of the columns that the table has, and all rows as column → value without empty cells.

    Raises:
        DataError: the file, or one of its rows, cannot be read, or the table has none of the columns.
    """
    table = open_rows(path)
    rows = [row for _, row in table.scan()]
    if problem := next((row.problem for row in rows if row.problem), ""):
        raise DataError(f"{path}, {problem}")
    found = {*table.columns, *(name for row in rows for name in row.cells)}
    column = next((name for name in columns if name in found), None)
    if column is None:
        raise DataError(f"{path} has no column {' or '.join(columns)}: give a table with this column")
    return column, [row.cells for row in rows]
