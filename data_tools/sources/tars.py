"""WebDataset tars, ours or others': samples are members with the same name up to the first dot.

The video is the member with a video's ending, the caption is `.txt`, and the fields of `.json` are kept. Members of
other kinds are left behind, as are the facts of an earlier build, which are measured anew.
"""

import tarfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ..errors import BadVideo, DataError
from .clip import MAX_CLIP_BYTES, VIDEO_ENDINGS, Clip, Columns, fingerprint, member_ending, origin_or_name
from .texts import decoded_text, describe, filled, json_object


@dataclass(frozen=True)
class TarItem:
    """The sample whose first header is at `offset` of `tar`, bytes."""

    tar: Path
    offset: int
    columns: Columns

    @property
    def name(self) -> str:
        with self.tar.open("rb") as file:
            return f"{self.tar.name}/{key_of(next(_members(file, self.offset)).name)}"

    @property
    def origin(self) -> str:
        return str(self._fields(self._bodies()).get(self.columns.source or "path", self.name))

    def load(self) -> Clip:
        bodies = self._bodies()
        videos = [ending for ending in bodies if Path(f"clip.{ending}").suffix.lower() in VIDEO_ENDINGS]
        if len(videos) != 1:
            raise BadVideo("no_video", f"the sample has {', '.join(bodies)}: one of them must be a video")
        fields = self._fields(bodies)
        beside = filled({self.columns.caption: decoded_text(bodies.get("txt", b""), f"{self.name}.txt")})
        meta = describe(str(fields.get("path", self.name)), [fields | beside], self.columns)
        return Clip(bodies[videos[0]], member_ending(f"clip.{videos[0]}"), meta)

    def _fields(self, bodies: dict[str, bytes]) -> dict:
        return json_object(bodies.get("json", b"{}"), f"{self.name}.json")

    def _bodies(self) -> dict[str, bytes]:
        """The sample's members by what follows the key."""
        with self.tar.open("rb") as file:
            _, members = next(groupby(_members(file, self.offset), lambda member: key_of(member.name)))
            found = [(member.name.removeprefix(f"{key_of(member.name)}."), member) for member in members]
            if sum(member.size for _, member in found) > MAX_CLIP_BYTES:
                raise BadVideo("too_large", f"more than {MAX_CLIP_BYTES >> 20} MiB: cut it into shorter clips")
            return {ending: _body(file, member) for ending, member in found}


class TarSource:
    """The samples of tars in the order of the files' names. Holds 16 bytes a sample."""

    def __init__(self, tars: list[Path], columns: Columns):
        self._tars, self._columns = tars, columns
        self._places, self._offsets = array("L"), array("Q")
        for place, tar in enumerate(tars):
            for offset in _samples(tar):
                self._places.append(place)
                self._offsets.append(offset)
        if not self._offsets:
            raise DataError(f"{tars[0].parent} has no samples in its tars: is it a WebDataset?")
        self.fingerprint = fingerprint([f"{tar.name} {tar.stat().st_size}" for tar in tars])

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, number: int) -> TarItem:
        return TarItem(self._tars[self._places[number]], self._offsets[number], self._columns)

    def origins(self) -> Iterable[str]:
        return (origin_or_name(self[number]) for number in range(len(self)))


def key_of(name: str) -> str:
    """WebDataset's rule: a member's name up to the first dot of its last part."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _samples(path: Path) -> Iterator[int]:
    """The offset of each sample's first header."""
    last = None
    try:
        with path.open("rb") as file:
            for member in _members(file, 0):
                if key_of(member.name) != last:
                    last = key_of(member.name)
                    yield member.offset
    except tarfile.TarError as error:
        raise DataError(f"{path} cannot be read as a tar: {error}") from None


def _members(file, offset: int) -> Iterator[tarfile.TarInfo]:
    """The regular files of an open tar from `offset` on."""
    file.seek(offset)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # tarfile would remember every member it has passed
            if member.isfile():
                yield member


def _body(file, member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    return file.read(member.size)
