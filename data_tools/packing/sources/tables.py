"""Videos and images named by a table: `captions.csv` with `path` and `caption`, or the same as .jsonl or .parquet.

Paths are relative to the table's folder. A row with several videos or images is a conversation about them. A row
without a path is a clip of its own, which is rejected unless it holds the video itself, or a conversation that names
none: that is a text. Rows with the same file, `start` and `end` describe one clip: all their captions and questions
are kept, and all other columns of the first row. A row that holds its video itself is always a clip of its own: the
path beside the bytes may be a bare name. `start` and `end` cut the clip out of its video. Rows of one clip that differ
in times under another name are refused.
"""

import hashlib
import os
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.errors import BadVideo, DataError
from data_tools.packing.sources.clip import Clip, check_is_file, check_size, member_ending, read_video, state_of
from data_tools.packing.sources.naming import FILE_URL, key_of, located
from data_tools.packing.sources.spans import cut_of, span_of, times_under_other_names
from data_tools.rows import Row, Rows, open_rows
from data_tools.texts import (
    RESERVED_FIELDS,
    Columns,
    MediaCell,
    describe,
    describe_several,
    is_conversation_alone,
    media_cells,
    video_field,
)
from data_tools.texts.describe import CONVERSATIONS
from data_tools.texts.turns import brief


@dataclass(frozen=True)
class TableItem:
    """The rows of one clip.

    Attributes:
        folder: paths in the rows are relative to it.
        where: names the first row where it names no video.
        rows: the rows.
        columns: names of the fields.
    """

    folder: Path
    where: str
    rows: list[Row]
    columns: Columns

    @property
    def name(self) -> str:
        """See `Item`."""
        return video_of(self.rows[0], self.columns) or self.where

    @property
    def origin(self) -> str:
        """See `Item`."""
        return origin_of(self.rows[0], self.columns, os.path.abspath(self.folder))

    @property
    def path(self) -> Path:
        """The path of the video."""
        return located(self.folder, self.name)

    def load(self) -> Clip:
        """See `Item`."""
        if problem := self.rows[0].problem:
            raise BadVideo("bad_row", problem)
        cells = [row.cells for row in self.rows]
        if len(media := media_cells(cells[0], self.columns)) > 1:
            return self._several(media)
        found = media[0].cell if media else None
        span, stored = span_of(cells[0]), stored_video(found)
        if stored is not None:
            return Clip(stored, member_ending(self.name), describe(self.name, cells, self.columns), span)
        if not video_of(self.rows[0], self.columns):
            if not media and is_conversation_alone(cells[0]):
                return Clip(b"", "", describe(self.name, cells, self.columns))
            raise BadVideo(
                "bad_row", f"the row has no {self.columns.video}" + (f" but {brief(found)}" if found else "")
            )
        check_is_file(self.path)
        meta = describe(self.name, cells, self.columns)
        return Clip(read_video(self.path) if span is None else self.path, member_ending(self.name), meta, span)

    def _several(self, media: list[MediaCell]) -> Clip:
        """The clip of a row that names several videos or images. Raises BadVideo."""
        row = self.rows[0].cells
        if span_of(row):
            raise BadVideo("bad_span", "a row with several videos or images has no `start` and `end`: leave both out")
        meta, order = describe_several(self.name, row, [one.kind for one in media], self.columns)
        found: list[tuple[bytes, str]] = []
        for number, place in zip(order, meta["media"]):
            cell = media[number].cell
            name, stored = path_in(cell), stored_video(cell)
            if not name and stored is None:
                raise BadVideo("bad_row", f"a video or an image is a path or bytes, not {brief(cell)}")
            body = read_video(located(self.folder, name)) if stored is None else stored
            found.append((body, member_ending(name or self.name)))
            place["path"] = name
        check_size(sum(len(body) for body, _ in found))
        (body, ending), *others = found
        return Clip(body, ending, meta, others=tuple(others))


class TableSource:
    """The clips of a table, in the order of their first rows. Keeps about 28 bytes per row; rows are read on demand.

    Raises:
        DataError: the table cannot be read, lacks a column, or names no file that exists.
    """

    def __init__(self, path: Path, columns: Columns):
        self._path, self._columns = path, columns
        self._rows: Rows = open_rows(path)
        names = dict.fromkeys(self._rows.columns)
        places, clips, origins, times = array("q"), array("Q"), array("Q"), array("Q")
        folder, first, problem = os.path.abspath(path.parent), "", ""
        found = not self._rows.embedded.isdisjoint(columns.videos)
        for place, row in self._rows.scan():
            paths = [path_in(one.cell) for one in media_cells(row.cells, columns)]
            video = paths[0] if len(paths) == 1 else ""
            names.update(dict.fromkeys(row.cells))
            first, problem = first or next(filter(None, paths), ""), problem or row.problem
            found = found or any(os.path.isfile(located(path.parent, name)) for name in paths if name)
            found = found or is_conversation_alone(row.cells)
            # A row that cannot be read, or names no video, or holds it, is a clip of its own.
            alone = row.problem or not video or video_field(row.cells, columns) in self._rows.embedded
            places.append(place)
            clips.append(_hash("row", str(place)) if alone else _hash(key_of(folder, video), cut_of(row.cells)))
            unread = times_under_other_names(row.cells)
            times.append(_hash(str(unread)) if unread else 0)
            origins.append(_hash(origin_of(row, columns, folder) or f"row {place}"))
        if not places:
            raise DataError(f"{path} has no rows{' below its header' * bool(names)}: add a row for each clip")
        if not names:
            raise DataError(f"{path}: none of its {len(places)} rows can be read; the first: {problem}")
        _check_columns(path, list(names), columns)
        self._places, self._origins = np.array(places), np.array(origins)
        self._order, self._bounds = grouped(np.array(clips))
        self._refuse_unread_times(np.array(times))
        if not found:
            named = f"the first is {path.parent / first}" if first else "no row has a name"
            advice = "paths are relative to the table's folder"
            if "://" in first and not first.startswith(FILE_URL):
                named, advice = f"the first is {first}", "download them, and name the files"
            raise DataError(f"none of the {len(places)} files named in {path} exists; {named}: {advice}")

    def _refuse_unread_times(self, times: np.ndarray) -> None:
        """Raise DataError if rows of one clip have different times (rows,) in columns that are not read as such."""
        ordered, starts = times[self._order], self._bounds[:-1]
        differ = np.flatnonzero(np.minimum.reduceat(ordered, starts) != np.maximum.reduceat(ordered, starts))
        if len(differ):
            item = self[int(differ[0])]
            names = " and ".join(dict.fromkeys(n for row in item.rows for n in times_under_other_names(row.cells)))
            raise DataError(
                f"{self._path}: rows of {item.name} differ in {names}: rename these columns to start and end, if the "
                "rows describe parts of the video, else to anything else"
            )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the table."""
        digest = hashlib.sha256()
        with self._path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    @cached_property
    def state(self) -> str:
        """See `Source`: of the files that the rows name. It reads the table again."""
        cells = (one.cell for _, row in self._rows.scan() for one in media_cells(row.cells, self._columns))
        return state_of(located(self._path.parent, name) for name in map(path_in, cells) if name)

    @property
    def files(self) -> list[Path]:
        """See `Source`."""
        return [self._path.resolve()]

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, number: int) -> TableItem:
        rows = self._order[self._bounds[number] : self._bounds[number + 1]]
        where = f"{self._path.name}, row {rows[0] + 1}"
        found = [self._rows.at(int(self._places[row])) for row in rows]
        return TableItem(self._path.parent, where, found, self._columns)

    def origins(self) -> Iterable[int]:
        """A hash of the origin of each clip, in order."""
        return self._origins[self._order[self._bounds[:-1]]].tolist()


def grouped(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group rows by key, in the order of each key's first row.

    Args:
        keys: (rows,).

    Returns:
        `order` (rows,) and `bounds` (groups + 1,), int64: group g is the rows order[bounds[g] : bounds[g + 1]].
    """
    _, first, key_of_row = np.unique(keys, return_index=True, return_inverse=True)
    group_of_key = np.empty_like(first)
    group_of_key[np.argsort(first)] = np.arange(len(first))
    group_of_row = group_of_key[key_of_row]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(group_of_row))])
    return np.argsort(group_of_row, kind="stable"), bounds


def video_of(row: Row, columns: Columns) -> str:
    """The path of a row's video; "" if there is none, or several. The cell may be a list of one."""
    media = media_cells(row.cells, columns)
    return path_in(media[0].cell) if len(media) == 1 else ""


def path_in(cell: Any) -> str:
    """The path in a cell, which may be Hugging Face's {"bytes", "path"}; "" if there is none."""
    video = cell.get("path") if isinstance(cell, dict) else cell
    return video if isinstance(video, str) else ""


def stored_video(cell: Any) -> bytes | None:
    """The video that a cell holds itself; None if there is none. Raises BadVideo if it is too large for a shard."""
    video = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(video, bytes):
        return None
    check_size(len(video))
    return video


def origin_of(row: Row, columns: Columns, folder: str) -> str:
    """The recording of a row's clip (see `Columns.source`), by default its first file; "" if it names none.

    `folder` is the table's, as an absolute path.
    """
    if columns.source:
        return str(row.cells.get(columns.source, ""))
    names = filter(None, (path_in(one.cell) for one in media_cells(row.cells, columns)))
    return next((key_of(folder, name) for name in names), "")


def _hash(*words: str) -> int:
    """A 64-bit hash. Among ten million different rows the chance of a collision is 3 in a million."""
    text = "\0".join(words).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _check_columns(table: Path, found: list[str], columns: Columns) -> None:
    """Raise DataError if a column is missing or has a reserved name."""
    present = f"it has {', '.join(found) or 'none'}"
    if {*columns.videos, *CONVERSATIONS}.isdisjoint(found):
        raise DataError(f"{table} has no column {columns.video}; {present}: give the videos' column by --video-column")
    if columns.source and columns.source not in found:
        raise DataError(f"{table} has no column {columns.source}; {present}: correct --source-column")
    if columns.texts.isdisjoint(found):
        raise DataError(
            f"{table} has no column {columns.caption}; {present}: give the captions' column by --caption-column"
        )
    for name in RESERVED_FIELDS:
        if name in found:
            raise DataError(f"{table} has a column {name}, which is a reserved name: rename it")
