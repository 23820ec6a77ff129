"""Random access to the rows of a table of captions.

A table may have millions of rows, so it is not kept in memory (except .json, and text in UTF-16). `scan` reads it once
and gives a place for each row; `at` reads the row at a place. A row that cannot be read has a problem; the others are
not affected.

row.py            what a row is, and the text of a table
csv_rows.py       .csv and .tsv
json_rows.py      .jsonl and .json
parquet_rows.py   .parquet, also with the videos inside
"""

from collections.abc import Callable
from pathlib import Path

from data_tools.packing.sources.rows.csv_rows import CsvRows
from data_tools.packing.sources.rows.json_rows import JsonLines, JsonList
from data_tools.packing.sources.rows.parquet_rows import ParquetRows
from data_tools.packing.sources.rows.row import Row, Rows

__all__ = ["TABLE_ENDINGS", "Row", "Rows", "open_rows"]

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
    return KINDS[path.suffix.lower()](path)
