"""What every layout gives: a source, which is a sequence of items, each of which loads one clip."""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_tools.errors import BadVideo
from data_tools.shards.samples import MAX_SAMPLE_BYTES, TEXT_ENDINGS


@dataclass(frozen=True)
class Columns:
    """The names of the fields to read: columns of a table, or fields of a .json.

    source: names what a clip was taken from; clips of one source go to the same side of a split. Default: the video.
    """

    video: str = "path"
    caption: str = "caption"
    source: str | None = None


@dataclass(frozen=True)
class Clip:
    """What a shard takes from the input: a container's bytes, its ending with the dot, and all that is said of it.

    span: the part to cut out, (start, end) in seconds; `video` is then the path of the whole, which may be too large
    to hold in memory.
    """

    video: bytes | Path
    extension: str
    meta: dict
    span: tuple[float, float] | None = None


class Item(Protocol):
    """One clip of the input, not yet read."""

    @property
    def name(self) -> str:
        """What a person finds it by in the input."""

    @property
    def origin(self) -> str:
        """What it was taken from; equal for clips that must not be told apart by a split."""

    def load(self) -> Clip:
        """Read it. Raises BadVideo, or OSError where the file cannot be read."""


class Source(Protocol):
    """The clips of an input, by number. `fingerprint` tells two lists of clips apart."""

    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Item: ...

    def origins(self) -> Iterable[str | int]:
        """The origin of each item, in order, or a number in its place."""


class ItemList(list):
    """A source whose items are few enough to be held."""

    def __init__(self, items: Iterable[Item]):
        super().__init__(items)
        self.fingerprint = fingerprint(item.name for item in self)

    def origins(self) -> Iterable[str]:
        return map(origin_or_name, self)


def origin_or_name(item: Item) -> str:
    """The item's origin; its name where the file that tells the origin is damaged: it will be rejected anyway."""
    try:
        return item.origin
    except BadVideo:
        return item.name


def fingerprint(names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def read_video(path: Path) -> bytes:
    """The bytes of a clip's file. Raises BadVideo where there is none, or more than a shard can take."""
    check_is_file(path)
    if path.stat().st_size > MAX_SAMPLE_BYTES:
        raise BadVideo("too_large", f"more than {MAX_SAMPLE_BYTES >> 20} MiB: cut it into shorter clips")
    return path.read_bytes()


def check_is_file(path: Path) -> None:
    if not os.path.isfile(path):
        raise BadVideo("missing_file", f"no file {path}")


def member_ending(name: str) -> str:
    """The file's ending as a tar member can bear it: one dot, lower case, none of the sample's own."""
    ending = Path(name).suffix.lower()
    usable = re.fullmatch(r"\.[a-z0-9]{1,8}", ending) and ending[1:] not in TEXT_ENDINGS
    return ending if usable else ".video"
