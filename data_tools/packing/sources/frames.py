"""Folders of frames: `NAME/frames/frame_0000.jpg …` with `NAME/caption.txt`.

The frame rate is read from `NAME/fps.txt`, else from "fps" in `NAME/meta.json`, else it is 24. The other fields of
`meta.json` are kept. The frames are encoded as nearly lossless H.264. Odd sizes are padded by one row or column of
edge pixels, because 4:2:0 needs even sizes.

JPEG, PNG and WebP are read as images are (see `video.image`): turned by their EXIF orientation, and never damaged.
FFmpeg reads frames of other formats.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_tools.errors import BadVideo
from data_tools.packing.sources.clip import Clip, ItemList, read_fields, read_text
from data_tools.packing.sources.natural import naturally_sorted
from data_tools.texts import Columns, describe, filled
from data_tools.video.encode import encode_mp4
from data_tools.video.image import image_facts, is_image, picture_of

DEFAULT_FPS = 24
FRAMES_CRF = 12


@dataclass(frozen=True)
class FramesItem:
    """A folder NAME with frames and a caption."""

    folder: Path
    columns: Columns

    @property
    def name(self) -> str:
        """See `Item`."""
        return self.folder.name

    @property
    def origin(self) -> str:
        """See `Item`."""
        if not self.columns.source:
            return self.name
        return str(read_fields(self.folder / "meta.json").get(self.columns.source, self.name))

    @property
    def files(self) -> list[Path]:
        """See `FileItem`."""
        texts = [self.folder / name for name in ("caption.txt", "fps.txt", "meta.json")]
        return [*texts, *_frames_in(self.folder / "frames")]

    def load(self) -> Clip:
        """See `Item`."""
        fields = read_fields(self.folder / "meta.json")
        fps = _frame_rate(read_text(self.folder / "fps.txt") or str(fields.get("fps", DEFAULT_FPS)))
        beside = filled({self.columns.caption: read_text(self.folder / "caption.txt")})
        meta = describe(self.name, [fields | beside], self.columns)
        return Clip(encode_mp4(_load_frames(self.folder / "frames"), fps, FRAMES_CRF), ".mp4", meta)


def find_frame_folders(folder: Path, columns: Columns) -> ItemList:
    """The folders NAME that hold NAME/frames, sorted by name."""
    return ItemList(FramesItem(child, columns) for child in sorted(folder.iterdir()) if (child / "frames").is_dir())


def _frame_rate(text: str) -> Fraction:
    try:
        fps = Fraction(text).limit_denominator(1001)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if not 0 < fps <= 1000:
        raise BadVideo("bad_fps", f"{text[:40]!r} is not a frame rate")
    return fps


def _frames_in(folder: Path) -> list[Path]:
    """The images of a folder, in the order of the numbers in their names."""
    return naturally_sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _load_frames(folder: Path) -> Iterator[np.ndarray]:
    """Yield the images of a folder, uint8 RGB (h, w, 3), in the order of the numbers in their names.

    Raises:
        BadVideo: there are no images, one cannot be read, or their sizes differ.
    """
    paths = _frames_in(folder)
    if not paths:
        raise BadVideo("no_frames", f"{folder} holds no images")
    shape = None
    for path in paths:
        frame = _load_image(path)
        shape = shape or frame.shape
        if frame.shape != shape:
            raise BadVideo("frame_sizes_differ", f"{path} differs in size from the first frame")
        yield frame


def _load_image(path: Path) -> np.ndarray:
    data = path.read_bytes()
    try:
        if is_image(data):
            image_facts(data)
            return picture_of(data).numpy()
        # Read through memory: libav takes a "%" in a path for a numbering pattern.
        with av.open(io.BytesIO(data), "r") as image:
            return next(image.decode(video=0)).to_ndarray(format="rgb24")
    except BadVideo as problem:
        raise BadVideo(problem.reason, f"{path}: {problem.detail}") from problem
    except (av.FFmpegError, IndexError, StopIteration) as error:
        raise BadVideo("bad_image", f"{path}: {error}") from None
