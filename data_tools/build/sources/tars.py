"""WebDataset tars, ours or others', to be packed anew; `shards.samples` says which member is read as what.

The fields of `.json` are kept. Members of other kinds are left behind, as are the facts of an earlier build, which
are measured anew.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_tools.build.sources.clip import Clip, Columns, fingerprint, member_ending, origin_or_name
from data_tools.build.sources.texts import decoded_text, describe, filled, json_object
from data_tools.errors import DataError
from data_tools.shards.samples import bodies_of, caption_ending, without_prefix
from data_tools.shards.tars import groups, key_and_ending, mapped, members


@dataclass(frozen=True)
class TarItem:
    """The sample whose first header is at `offset` of `tar`, bytes."""

    tar: Path
    offset: int
    columns: Columns

    @property
    def name(self) -> str:
        with mapped(self.tar) as data:
            key, _ = key_and_ending(next(members(data, self.offset)).name)
        return f"{self.tar.name}/{key}"

    @property
    def origin(self) -> str:
        _, bodies = self._members()
        return str(self._fields(bodies).get(self.columns.source or "path", self.name))

    def load(self) -> Clip:
        ending, bodies = self._members()
        fields = self._fields(bodies)
        told = caption_ending(bodies)
        beside = {self.columns.caption: decoded_text(bodies[told], f"{self.name}.{told}")} if told else {}
        meta = describe(str(fields.get("path", self.name)), [fields | filled(beside)], self.columns)
        return Clip(bodies[ending], member_ending(f"clip.{ending}"), meta)

    def _fields(self, bodies: dict[str, bytes]) -> dict:
        return json_object(bodies.get("json", b"{}"), f"{self.name}.json")

    def _members(self) -> tuple[str, dict[str, bytes]]:
        """The clip's ending, and the bodies of all members by ending."""
        with mapped(self.tar) as data:
            return without_prefix(bodies_of(next(groups(members(data, self.offset))), data))


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


def _samples(path: Path) -> Iterator[int]:
    """The offset of each sample's first header."""
    try:
        with mapped(path) as data:
            for group in groups(members(data)):
                yield group.offset
    except DataError as error:
        raise DataError(f"{path} cannot be read as a tar: {error}") from None
