"""The rows of a .parquet. A column may hold the videos themselves, as bytes or as Hugging Face's {"bytes", "path"}."""

import os
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from data_tools.errors import DataError
from data_tools.rows.row import Row
from data_tools.texts import filled


class ParquetRows:
    """See `Rows`. The place of a row is its number. The last row group is cached, for reads of neighbouring rows.

    Raises:
        DataError: the file cannot be read as Parquet, or pyarrow is missing.
    """

    def __init__(self, path: Path):
        self.path = path
        file = _open_parquet(path)
        self.columns: list[str] = file.schema_arrow.names
        leaves = [file.schema.column(number) for number in range(len(file.schema))]
        files = {
            leaf.path
            for number, leaf in enumerate(leaves)
            if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "NONE" and _is_filled(file, number)
        }
        self.embedded = frozenset(path.split(".")[0] for path in files).intersection(self.columns)  # also in lists
        self._scanned = [leaf.path for leaf in leaves if leaf.path not in files]
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._starts = [0, *accumulate(counts)]

    def scan(self) -> Iterator[tuple[int, Row]]:
        """See `Rows`."""
        file, place = _open_parquet(self.path), 0
        for batch in file.iter_batches(columns=self._scanned, use_threads=False):
            for cells in batch.to_pylist():
                yield place, Row(filled(cells))
                place += 1

    def at(self, place: int) -> Row:
        """See `Rows`."""
        group = bisect_right(self._starts, place) - 1
        (cells,) = _row_group(self.path, group).slice(place - self._starts[group], 1).to_pylist()
        return Row(filled(cells))


def _open_parquet(path: Path):
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path} needs pyarrow, which is not installed: pip install 'vtok[parquet]'") from None
    try:
        return pyarrow.parquet.ParquetFile(os.fspath(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def _is_filled(file, number: int) -> bool:
    """Whether a column has values, as far as the file tells. Hugging Face's {"bytes", "path"} may have paths alone."""
    groups = [file.metadata.row_group(group).column(number) for group in range(file.num_row_groups)]
    known = [group.statistics for group in groups]
    return any(one is None or not one.has_null_count or one.num_values for one in known)


@lru_cache(maxsize=1)
def _row_group(path: Path, group: int):
    return _open_parquet(path).read_row_group(group, use_threads=False)
