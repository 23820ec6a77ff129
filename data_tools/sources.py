"""What goes into a build: captioned clips in one of two layouts.

*Videos*: a folder of video files with a `captions.csv` whose columns `path` and `caption` are required. All other
columns are kept; `question`, `answer` and `captions` (a JSON list of wordings to draw from) are used in training.

*Frames*: folders `NAME/frames/frame_0000.jpg …` with `NAME/caption.txt`. The frame rate stands in `NAME/fps.txt` or
as "fps" in `NAME/meta.json`, otherwise it is 24; the other fields of `meta.json` are kept. The frames become an
H.264 clip, nearly lossless; odd sizes gain one row or column of edge pixels, as 4:2:0 needs even ones.

`discover` lists the clips without opening them; an input that cannot be right as a whole raises DataError. What is
wrong with a single clip comes out when it is loaded, as a BadVideo with its reason.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .encode import encode_mp4
from .errors import BadVideo, DataError

REQUIRED_COLUMNS = ("path", "caption")
RESERVED_FIELDS = ("facts",)
DEFAULT_FPS = 24
FRAMES_CRF = 12
MAX_CLIP_BYTES = 2**30  # one pread returns at most 2 GiB, and a clip is held in memory


@dataclass(frozen=True)
class Clip:
    """What a shard takes from the input: a container's bytes, its ending with the dot, and all that is said of it."""

    video: bytes
    extension: str
    meta: dict


@dataclass(frozen=True)
class VideoItem:
    """One row of a captions.csv."""

    folder: Path
    cells: dict

    @property
    def name(self) -> str:
        return self.cells["path"] or ""

    def load(self) -> Clip:
        if None in self.cells or None in self.cells.values():
            raise BadVideo("bad_row", "the row and the header differ in length: quote captions that have commas")
        path = self.folder / self.name
        if not path.is_file():
            raise BadVideo("missing_file", f"no file {path}")
        if path.stat().st_size > MAX_CLIP_BYTES:
            raise BadVideo("too_large", f"more than {MAX_CLIP_BYTES >> 20} MiB: cut it into shorter clips")
        meta = _checked({name: cell for name, cell in self.cells.items() if cell})
        return Clip(path.read_bytes(), _extension(path), meta)


@dataclass(frozen=True)
class FramesItem:
    """One folder of frames with its caption."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def load(self) -> Clip:
        about = _json_object(self.folder / "meta.json")
        fps = _frame_rate(_text(self.folder / "fps.txt") or str(about.get("fps", DEFAULT_FPS)))
        meta = _checked(about | {"path": self.name, "caption": _text(self.folder / "caption.txt")})
        return Clip(encode_mp4(_load_frames(self.folder / "frames"), fps, FRAMES_CRF), ".mp4", meta)


Item = VideoItem | FramesItem


def discover(input_folder: str | Path) -> list[Item]:
    """The clips of a folder: in the CSV's order, or frame folders by name."""
    folder = Path(input_folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give the folder that holds the clips")
    captions = folder / "captions.csv"
    if captions.is_file():
        return _discover_videos(folder, captions)
    items = [FramesItem(child) for child in sorted(folder.iterdir()) if (child / "frames").is_dir()]
    if not items:
        state = "has neither captions.csv nor NAME/frames folders" if any(folder.iterdir()) else "is empty"
        raise DataError(f"{folder} {state}: put clips and a captions.csv (path,caption) there")
    return items


def _discover_videos(folder: Path, captions: Path) -> list[Item]:
    try:
        with captions.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip() for column in table.fieldnames or []]
            table.fieldnames = columns
            _check_columns(captions, columns)
            items = [VideoItem(folder, cells) for cells in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{captions} cannot be read as a UTF-8 CSV file: {error}") from None
    if not items:
        raise DataError(f"{captions} has no rows below its header: add a row for each clip")
    if not any((folder / item.name).is_file() for item in items):
        raise DataError(
            f"none of the {len(items)} files named in {captions} exists; the first is {folder / items[0].name}: "
            "paths are relative to the CSV's folder"
        )
    return items


def _check_columns(captions: Path, columns: list[str]) -> None:
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    if missing:
        raise DataError(
            f"{captions} has no column {' and '.join(missing)}; it has {', '.join(columns) or 'none'}: "
            "name them in its first line"
        )
    for column in RESERVED_FIELDS:
        if column in columns:
            raise DataError(f"{captions} has a column {column}, a name the shards use themselves: rename it")


def _checked(meta: dict) -> dict:
    """`meta` with a caption that is there and `captions` as a list; BadVideo otherwise."""
    if not meta.get("caption", "").strip():
        raise BadVideo("no_caption", "the caption is missing or empty")
    if "captions" in meta:
        meta["captions"] = _wordings(meta["captions"])
    return meta


def _wordings(cell: str | list) -> list[str]:
    try:
        wordings = json.loads(cell) if isinstance(cell, str) else cell
    except ValueError:
        wordings = None
    if not isinstance(wordings, list) or not wordings or not all(isinstance(text, str) for text in wordings):
        raise BadVideo("bad_captions", "`captions` is not a JSON list of strings")
    return wordings


def _extension(path: Path) -> str:
    """The file's ending as a tar member can bear it: one dot, lower case, none of the sample's own."""
    extension = path.suffix.lower()
    usable = re.fullmatch(r"\.[a-z0-9]{1,8}", extension) and extension not in (".txt", ".json")
    return extension if usable else ".video"


def _text(path: Path) -> str:
    """The stripped text of a small file, "" where there is none."""
    try:
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise BadVideo("bad_text", f"{path} is not UTF-8: {error}") from None


def _json_object(path: Path) -> dict:
    try:
        value = json.loads(_text(path) or "{}")
    except json.JSONDecodeError as error:
        raise BadVideo("bad_meta", f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise BadVideo("bad_meta", f"{path} is not a JSON object")
    return value


def _frame_rate(text: str) -> Fraction:
    try:
        fps = Fraction(text).limit_denominator(1001)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if not 0 < fps <= 1000:
        raise BadVideo("bad_fps", f"{text[:40]!r} is no frame rate")
    return fps


def _load_frames(folder: Path) -> Iterator[np.ndarray]:
    """The images of a folder, (h, w, 3) uint8 each; shorter names first, so that frame_9 comes before frame_10."""
    paths = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    if not paths:
        raise BadVideo("no_frames", f"{folder} holds no images")
    shape = None
    for path in sorted(paths, key=lambda path: (len(path.name), path.name)):
        frame = _load_image(path)
        shape = shape or frame.shape
        if frame.shape != shape:
            raise BadVideo("frame_sizes_differ", f"{path} is not of the size of the first frame")
        yield frame


def _load_image(path: Path) -> np.ndarray:
    try:
        # Through memory: given a path, libav would take a "%" in it for a numbering pattern.
        with av.open(io.BytesIO(path.read_bytes())) as image:
            return next(image.decode(video=0)).to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError, StopIteration) as error:
        raise BadVideo("bad_image", f"{path}: {error}") from None
