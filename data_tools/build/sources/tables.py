"""Videos named by a table: `captions.csv` with the columns `path` and `caption`, or the same as .jsonl or .parquet.

Paths are relative to the table's folder. Rows with the same video, `start` and `end` tell of one clip: all their
captions and questions are kept. All other columns are kept from the first of them. `start` and `end`, in seconds or
as h:mm:ss, cut the clip out of its video.
"""

import hashlib
import math
import os
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from data_tools.build.sources.clip import Clip, Columns, check_is_file, member_ending, read_video
from data_tools.build.sources.rows import Row, Rows, open_rows
from data_tools.build.sources.texts import RESERVED_FIELDS, describe
from data_tools.errors import BadVideo, DataError


@dataclass(frozen=True)
class TableItem:
    """The rows of one clip."""

    folder: Path
    rows: list[Row]
    columns: Columns

    @property
    def name(self) -> str:
        return video_of(self.rows[0], self.columns)

    @property
    def origin(self) -> str:
        return origin_of(self.rows[0], self.columns)

    @property
    def path(self) -> Path:
        return self.folder / self.name

    def load(self) -> Clip:
        if problem := self.rows[0].problem:
            raise BadVideo("bad_row", problem)
        if not self.name:
            raise BadVideo("bad_row", f"the row has no {self.columns.video}")
        cells = [row.cells for row in self.rows]
        span, ending = span_of(cells[0]), member_ending(self.name)
        check_is_file(self.path)
        meta = describe(self.name, cells, self.columns)
        return Clip(read_video(self.path) if span is None else self.path, ending, meta, span)


class TableSource:
    """The clips of a table in the order of their first rows. Holds 28 bytes a row; rows are read when asked for."""

    def __init__(self, path: Path, columns: Columns):
        self._path, self._columns = path, columns
        self._rows: Rows = open_rows(path)
        _check_columns(path, self._rows.columns, columns)
        places, clips, origins, found = array("q"), array("Q"), array("Q"), False
        for place, row in self._rows.scan():
            video = video_of(row, columns)
            found = found or os.path.isfile(path.parent / video)
            # A row that is wrong as a row is nobody's second caption.
            cut = ["row", str(place)] if row.problem else [str(row.cells.get(name, "")) for name in ("start", "end")]
            places.append(place)
            clips.append(_hash(video, *cut))
            origins.append(_hash(origin_of(row, columns)))
        if not places:
            raise DataError(f"{path} has no rows below its header: add a row for each clip")
        self._places, self._origins = np.array(places), np.array(origins)
        self._order, self._bounds = grouped(np.array(clips))
        if not found:
            raise DataError(
                f"none of the {len(places)} files named in {path} exists; the first is {path.parent / self[0].name}: "
                "paths are relative to the table's folder"
            )

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        with self._path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, number: int) -> TableItem:
        rows = self._order[self._bounds[number] : self._bounds[number + 1]]
        return TableItem(self._path.parent, [self._rows.at(int(self._places[row])) for row in rows], self._columns)

    def origins(self) -> Iterable[int]:
        return self._origins[self._order[self._bounds[:-1]]].tolist()


def grouped(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows with equal keys put together, in the order of each key's first row.

    Returns `order` (rows,) and `bounds` (groups + 1,): group g is the rows order[bounds[g] : bounds[g + 1]].
    """
    _, first, key_of_row = np.unique(keys, return_index=True, return_inverse=True)
    group_of_key = np.empty_like(first)
    group_of_key[np.argsort(first)] = np.arange(len(first))
    group_of_row = group_of_key[key_of_row]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(group_of_row))])
    return np.argsort(group_of_row, kind="stable"), bounds


def video_of(row: Row, columns: Columns) -> str:
    video = row.cells.get(columns.video)
    return video if isinstance(video, str) else ""


def origin_of(row: Row, columns: Columns) -> str:
    return str(row.cells.get(columns.source or columns.video, ""))


def span_of(cells: dict) -> tuple[float, float] | None:
    """The part to cut out, seconds; None for the whole video. A missing end is the video's."""
    if "start" not in cells and "end" not in cells:
        return None
    start, end = _seconds(cells.get("start", 0)), _seconds(cells.get("end", math.inf))
    if not 0 <= start < end:
        raise BadVideo("bad_span", f"from {start:g} s to {end:g} s is no part of a video")
    return start, end


def _seconds(cell: str | float) -> float:
    try:
        return sum(float(part) * 60**place for place, part in enumerate(reversed(str(cell).split(":"))))
    except ValueError:
        raise BadVideo("bad_span", f"{str(cell)[:40]!r} is no time: write seconds or h:mm:ss") from None


def _hash(*words: str) -> int:
    """64 bits: among ten million rows, two that should differ agree with a chance of 3 in a million."""
    text = "\0".join(words).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _check_columns(table: Path, found: list[str], columns: Columns) -> None:
    told = f"it has {', '.join(found) or 'none'}"
    if columns.video not in found:
        raise DataError(
            f"{table} has no column {columns.video}; {told}: name the one with the videos by --video-column"
        )
    if columns.source and columns.source not in found:
        raise DataError(f"{table} has no column {columns.source}; {told}: mend --source-column")
    if not {columns.caption, "captions", "conversations", "answer"} & set(found):
        raise DataError(
            f"{table} has no column {columns.caption}; {told}: name the one with the captions by --caption-column"
        )
    for name in RESERVED_FIELDS:
        if name in found:
            raise DataError(f"{table} has a column {name}, a name the shards use themselves: rename it")
