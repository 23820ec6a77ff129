"""Folders of frames: `NAME/frames/frame_0000.jpg …` with `NAME/caption.txt`, at any depth of folders.

Other files of the folder `frames` are left out, such as those that file managers put there.

The frame rate is read from `NAME/fps.txt`, else from "fps" in `NAME/meta.json`, else it is 24. The other fields of
`meta.json` are kept. The frames are encoded as nearly lossless H.264. Odd sizes are padded by one row or column of
edge pixels, because 4:2:0 needs even sizes.

JPEG, PNG, WebP, BMP and GIF are read as images are (see `video.image`): turned by their EXIF orientation, and never
damaged. FFmpeg reads frames of other formats.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_tools.errors import BadVideo
from data_tools.packing.sources.clip import Clip, read_fields, read_text
from data_tools.packing.sources.files import find_videos
from data_tools.packing.sources.natural import naturally_sorted
from data_tools.shards.samples import IMAGE_ENDINGS
from data_tools.texts import Columns, describe, filled
from data_tools.video.encode import encode_mp4
from data_tools.video.image import image_facts, is_image, picture_of

DEFAULT_FPS = 24
FRAMES_CRF = 12
FRAMES, CAPTION, META = "frames", "caption.txt", "meta.json"
# A file with one of these is an image, be it one that cannot be read.
ENDINGS = IMAGE_ENDINGS | frozenset(
    "jpe jfif dib tif tiff gif ppm pgm pbm pnm tga sgi jp2 j2k jxl avif heic heif dpx exr hdr qoi".split()
)


@dataclass(frozen=True)
class FramesItem:
    """A folder NAME with frames and a caption.

    Attributes:
        folder: the path of NAME.
        name: the same, relative to the input.
        columns: names of the fields of meta.json.
    """

    folder: Path
    name: str
    columns: Columns

    @property
    def origin(self) -> str:
        """See `Item`."""
        if not self.columns.source:
            return self.name
        return str(read_fields(self.folder / META).get(self.columns.source, self.name))

    @property
    def files(self) -> Iterator[Path]:
        """See `FileItem`."""
        yield from (self.folder / name for name in (CAPTION, "fps.txt", META))
        yield from _frames_in(self.folder / FRAMES)

    def load(self) -> Clip:
        """See `Item`."""
        fields = read_fields(self.folder / META)
        fps = _frame_rate(read_text(self.folder / "fps.txt") or str(filled(fields).get("fps", DEFAULT_FPS)))
        beside = filled({self.columns.caption: read_text(self.folder / CAPTION)})
        meta = describe(self.name, [fields | beside], self.columns)
        return Clip(encode_mp4(_load_frames(self.folder / FRAMES), fps, FRAMES_CRF), ".mp4", meta)


def find_frame_folders(folder: Path, below: Mapping[Path, list[str]], columns: Columns) -> list[FramesItem]:
    """The folders NAME that hold NAME/frames, sorted by path.

    What lies below NAME belongs to its clip. A folder `frames` of images, or of videos, that have texts of their own is
    none of frames, unless NAME has a text.

    Args:
        folder: the input.
        below: the names of the files of each folder below it, as `files.places` gives them.
        columns: names of the fields of meta.json.
    """
    found: dict[Path, FramesItem] = {}
    for place in sorted(below):
        clip = place.parent
        if place.name != FRAMES or place == folder or clip == folder or not found.keys().isdisjoint(place.parents):
            continue
        files = [place / name for name in below[place]]
        if {CAPTION, META}.isdisjoint(below[clip]) and find_videos(place, files, columns) is not None:
            continue
        found[clip] = FramesItem(clip, clip.relative_to(folder).as_posix(), columns)
    return list(found.values())


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
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return naturally_sorted(path for path in files if path.suffix[1:].lower() in ENDINGS or is_image(path))


def _load_frames(folder: Path) -> Iterator[np.ndarray]:
    """Yield the images of a folder, uint8 RGB (h, w, 3), in the order of the numbers in their names.

    Raises:
        BadVideo: there are no images, two have one name, one cannot be read, or their sizes differ.
    """
    paths = _frames_in(folder)
    if not paths:
        raise BadVideo("no_frames", f"{folder} holds no images")
    _check_names(paths)
    shape = None
    for path in paths:
        frame = _load_image(path)
        shape = shape or frame.shape
        if frame.shape != shape:
            raise BadVideo("frame_sizes_differ", f"{path} differs in size from the first frame")
        yield frame


def _check_names(paths: Iterable[Path]) -> None:
    """Raise BadVideo if two frames differ in their endings alone: a conversion left each picture twice."""
    earlier: dict[str, Path] = {}
    for path in paths:
        name = path.stem if path.suffix[1:].lower() in ENDINGS else path.name
        if name in earlier:
            raise BadVideo("same_frame", f"{earlier[name]} and {path.name} are one frame: delete one of them")
        earlier[name] = path


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
    except (av.FFmpegError, IndexError, StopIteration):
        raise BadVideo("bad_image", f"{path} cannot be read as a picture") from None
