"""Videos with texts beside them: `NAME.mp4` with `NAME.txt` (the caption), `NAME.json`, or both.

Folders may be nested, or links to folders. The name of a text is the video's with or without its ending, in letters of
any case: `NAME.mp4.txt` and `NAME.TXT` are texts of `NAME.mp4` too. The .txt overrides the caption of the .json.

A file is a video if it has a video ending, or if its .txt has no other file to describe. So is an image, a video of
one frame, that has a .txt or a .json, if no video has the same name. A .txt without a file is a
clip without a video, which is rejected.
"""

import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_tools.errors import BadVideo, DataError
from data_tools.packing.sources.clip import (
    Clip,
    FileItem,
    ItemList,
    check_is_file,
    member_ending,
    read_fields,
    read_text,
    read_video,
)
from data_tools.shards.samples import IMAGE_ENDINGS, TEXT_ENDINGS, VIDEO_ENDINGS
from data_tools.texts import Columns, describe, filled

PLAN = "build.json"  # in the output of a build (see `packing.state`)
PLANNED = {"version", "fingerprint", "samples_per_shard", "datasets"}  # fields of it; other tools have a build.json too


@dataclass(frozen=True)
class VideoItem:
    """A video and its texts.

    Attributes:
        folder: the input.
        name: path of the video, relative to `folder`.
        texts: paths of its texts by their ending, "txt" or "json".
        columns: names of the fields of the .json.
    """

    folder: Path
    name: str
    texts: dict[str, Path]
    columns: Columns

    @property
    def origin(self) -> str:
        """See `Item`."""
        return str(self._fields().get(self.columns.source, self.name)) if self.columns.source else self.name

    @property
    def files(self) -> list[Path]:
        """See `FileItem`."""
        return [self.folder / self.name, *self.texts.values()]

    def load(self) -> Clip:
        """See `Item`."""
        check_is_file(self.folder / self.name)
        caption = read_text(self.texts["txt"]) if "txt" in self.texts else ""
        meta = describe(self.name, [self._fields() | filled({self.columns.caption: caption})], self.columns)
        return Clip(read_video(self.folder / self.name), member_ending(self.name), meta)

    def _fields(self) -> dict:
        return read_fields(self.texts["json"]) if "json" in self.texts else {}


@dataclass(frozen=True)
class LoneText:
    """A caption without a video.

    Attributes:
        name: path of the text, relative to the input.
    """

    name: str

    @property
    def origin(self) -> str:
        """See `Item`."""
        return self.name

    @property
    def files(self) -> tuple[()]:
        """None: whatever the text says, the clip is rejected."""
        return ()

    def load(self) -> Clip:
        """See `Item`. Raises BadVideo always."""
        raise BadVideo("no_video", "there is no video beside this text")


def find_videos(folder: Path, files: Iterable[Path], columns: Columns) -> ItemList | None:
    """The videos among the files of a folder, sorted by name; None if none of them has a text beside it."""
    files = set(files)
    texts = [path for path in files if _ending(path) in ("txt", "json")]
    described: dict[str, dict[str, Path]] = {}  # by the text's name without its ending
    for path in sorted(texts, key=lambda path: path.suffix, reverse=True):  # .txt after .TXT, and so instead of it
        described.setdefault(_names(path)[1], {})[_ending(path)] = path
    videos = {path for path in files if _ending(path) in VIDEO_ENDINGS}
    named = {name for path in videos for name in _names(path)}
    lone = {name for name, found in described.items() if "txt" in found} - named
    others = {path for path in files - videos if _ending(path) not in TEXT_ENDINGS}
    lone_json = described.keys() - named
    videos |= {path for path in others if not lone.isdisjoint(_names(path))}
    images = (path for path in others if _ending(path) in IMAGE_ENDINGS)
    videos |= {path for path in images if not lone_json.isdisjoint(_names(path))}
    named |= {name for path in videos for name in _names(path)}
    if not named & described.keys():
        return None
    items: list[FileItem] = []
    for path in videos:
        whole, stem = _names(path)
        found = described.get(stem, {}) | described.get(whole, {})
        items.append(VideoItem(folder, path.relative_to(folder).as_posix(), found, columns))
    items += [LoneText(described[name]["txt"].relative_to(folder).as_posix()) for name in lone - named]
    return ItemList(sorted(items, key=lambda item: item.name))


def walk(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, as `places` finds them. Raises DataError if a folder cannot be read."""
    return (place / name for place, names in places(folder) for name in names)


def places(folder: Path, left_out: Callable[[Path], None] = lambda _: None) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and all folders below it, each with the names of its files.

    Links to folders are followed, and links to files that are missing are listed. A build's output inside the folder is
    left out.

    Args:
        folder: the topmost.
        left_out: is called with each build's output.

    Raises:
        DataError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}")

    above = {folder: [os.path.realpath(folder)]}  # the real paths of a folder and of those above it
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        here = above.pop(Path(place))
        if PLAN in names and Path(place) != folder and _is_output(Path(place)):
            left_out(Path(place))
            folders.clear()
            continue
        for name in list(folders):
            real = os.path.realpath(os.path.join(place, name))
            if real in here:  # a link to a folder above would lead round in a circle
                folders.remove(name)
            else:
                above[Path(place, name)] = [*here, real]
        yield Path(place), names


def _is_output(folder: Path) -> bool:
    """Whether a folder's build.json is the plan of a build."""
    try:
        plan = json.loads((folder / PLAN).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(plan, dict) and plan.keys() >= PLANNED


def _names(path: Path) -> tuple[str, str]:
    """The path with and without its ending. Accents have one form, since systems write them in different ones."""
    whole, stem = (unicodedata.normalize("NFC", str(name)) for name in (path, path.with_suffix("")))
    return whole, stem


def _ending(path: Path) -> str:
    return path.suffix[1:].lower()
