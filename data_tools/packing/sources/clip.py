"""The interface of all layouts: a source is a sequence of items, and an item loads one clip."""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Protocol

from data_tools.errors import BadVideo
from data_tools.shards.samples import MAX_SAMPLE_BYTES, TEXT_ENDINGS
from data_tools.texts import decoded, json_object

MOST_STATED = 100_000  # files whose sizes and times are compared when a build goes on


@dataclass(frozen=True)
class Clip:
    """A clip of the input.

    Attributes:
        video: the bytes of the file; with `span` the path of the whole video, if it has one: it may not fit in memory.
            No bytes for a text alone.
        extension: ending of the file, with the dot; "" for a text alone.
        meta: texts and other fields (see `texts.describe`).
        span: the part to cut out, (start, end) in seconds; None for the whole video.
        others: in a conversation about several media, (bytes, ending) of each behind the first. `meta` has the places.
    """

    video: bytes | Path
    extension: str
    meta: dict
    span: tuple[float, float] | None = None
    others: tuple[tuple[bytes, str], ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether this is a text alone."""
        return not self.extension


class Item(Protocol):
    """One clip of the input, not yet read."""

    @property
    def name(self) -> str:
        """The name by which a person finds the clip in the input."""

    @property
    def origin(self) -> str:
        """The recording that the clip is from. A split keeps clips of one origin together."""

    def load(self) -> Clip:
        """Read the clip.

        Raises:
            BadVideo: the clip cannot be used.
            OSError: the file cannot be read.
        """


class FileItem(Item, Protocol):
    """A clip of files of its own."""

    @property
    def files(self) -> Iterable[Path]:
        """All files that it is read from, in an order that depends on the input alone. Some may be missing."""


class Source(Protocol):
    """The clips of an input, by number."""

    @property
    def fingerprint(self) -> str:
        """A hash of the list of clips."""

    @property
    def state(self) -> str:
        """A hash of the sizes and modification times of the clips' files (see `state_of`)."""

    @property
    def files(self) -> Iterable[Path]:
        """The tars or the table, resolved; of clips of files one file each. What a table names is not among them."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Item: ...

    def origins(self) -> Iterable[str | int]:
        """The origin of each item, or a number that stands for it, in order."""


class ItemList(list):
    """A source that holds all its items in memory."""

    def __init__(self, items: Iterable[FileItem]):
        super().__init__(items)
        self.fingerprint = fingerprint(item.name for item in self)

    @cached_property
    def state(self) -> str:
        """See `Source`."""
        return state_of(path for item in self for path in item.files)

    @property
    def files(self) -> Iterable[Path]:
        """See `Source`."""
        return (path for item in self for path in islice(item.files, 1))

    def origins(self) -> Iterable[str]:
        """The origin of each item, in order."""
        return map(origin_or_name, self)


def origin_or_name(item: Item) -> str:
    """The item's origin; its name if the file with the origin is damaged (the clip will be rejected anyway)."""
    try:
        return item.origin
    except BadVideo:
        return item.name


def fingerprint(names: Iterable[str]) -> str:
    """sha256 of names, in order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def state_of(paths: Iterable[Path]) -> str:
    """sha256 of the names, sizes and modification times of files, in order: one `stat` each, nothing is read.

    "" if there are more than `MOST_STATED`: each part of an array job would ask for millions.
    """
    digest = hashlib.sha256()
    for number, path in enumerate(paths):
        if number == MOST_STATED:
            return ""
        try:
            status = os.stat(path)
            told = f"{path.name} {status.st_size} {status.st_mtime_ns}"
        except (OSError, ValueError):  # there is no such file, or no file can have this name
            told = path.name
        digest.update(told.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def read_video(path: Path) -> bytes:
    """The bytes of a clip's file. Raises BadVideo if it is missing or too large for a shard."""
    check_is_file(path)
    check_size(path.stat().st_size)
    return path.read_bytes()


def check_size(size: int) -> None:
    """Raise BadVideo if a video of `size` bytes is too large for a shard."""
    if size > MAX_SAMPLE_BYTES:
        raise BadVideo("too_large", f"the file exceeds {MAX_SAMPLE_BYTES >> 20} MiB: cut it into shorter clips")


def check_is_file(path: Path) -> None:
    """Raise BadVideo if there is no file."""
    if not os.path.isfile(path):
        raise BadVideo("missing_file", f"no file {path}")


def read_text(path: Path) -> str:
    """The text of a small file; "" if there is no file. Raises BadVideo if its encoding is unknown."""
    return decoded(path.read_bytes() if path.is_file() else b"", str(path))


def read_fields(path: Path) -> dict:
    """The JSON object in a small file; {} if there is no file. Raises BadVideo."""
    return json_object(path.read_bytes() if path.is_file() else b"", str(path))


def member_ending(name: str) -> str:
    """The file's ending if it can name a tar member (short, lower case, not that of a text), else ".video"."""
    ending = Path(name).suffix.lower()
    usable = re.fullmatch(r"\.[a-z0-9]{1,8}", ending) and ending[1:] not in TEXT_ENDINGS
    return ending if usable else ".video"
