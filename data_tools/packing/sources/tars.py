"""WebDataset tars, ours or of other tools, to be packed again. `shards.samples` says how members are read.

The fields of `.json` are kept, except the facts of an earlier build, which are measured again. Members of other kinds
are dropped.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_tools.errors import DataError
from data_tools.packing.sources.clip import Clip, fingerprint, member_ending, origin_or_name, state_of
from data_tools.shards.samples import bodies_of, divided, take_meta
from data_tools.shards.tars import groups, mapped, members
from data_tools.texts import Columns, json_object


@dataclass(frozen=True)
class TarItem:
    """The sample whose first header is at byte `offset` of `tar`, a file below `folder`."""

    folder: Path
    tar: Path
    offset: int
    columns: Columns

    @property
    def name(self) -> str:
        """See `Item`."""
        with mapped(self.tar) as data:
            key = next(groups(members(data, self.offset))).key
        return f"{self.tar.relative_to(self.folder).as_posix()}/{key}"

    @property
    def origin(self) -> str:
        """See `Item`."""
        fields = json_object(self._members()[1].get("json", b""), "the json")
        return str(fields.get(self.columns.source or "path", self.name))

    def load(self) -> Clip:
        """See `Item`."""
        media, bodies = self._members()
        meta = take_meta(bodies, self.name, self.columns)
        meta.pop("facts", None)
        found = [(body, member_ending(f"clip.{ending}")) for ending, body in media.items()]
        video, extension = found[0] if found else (b"", "")
        return Clip(video, extension, meta, others=tuple(found[1:]))

    def _members(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """The videos and images, none for a text alone, and all other members, as ending -> body. Raises BadVideo."""
        with mapped(self.tar) as data:
            return divided(bodies_of(next(groups(members(data, self.offset))), data))


class TarSource:
    """The samples of tars below a folder, in the given order. Keeps 16 bytes per sample.

    Raises:
        DataError: a tar cannot be read, or there are no samples.
    """

    def __init__(self, folder: Path, tars: list[Path], columns: Columns):
        self._folder = folder
        self._tars, self._columns = tars, columns
        self._places, self._offsets = array("L"), array("Q")
        for place, tar in enumerate(tars):
            for offset in _samples(tar):
                self._places.append(place)
                self._offsets.append(offset)
        if not self._offsets:
            raise DataError(f"{tars[0].parent} has no samples in its tars: is it a WebDataset?")
        self.fingerprint = fingerprint([f"{tar.relative_to(folder).as_posix()} {tar.stat().st_size}" for tar in tars])
        self.state = state_of(tars)

    @property
    def files(self) -> list[Path]:
        """See `Source`."""
        return [tar.resolve() for tar in self._tars]

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, number: int) -> TarItem:
        return TarItem(self._folder, self._tars[self._places[number]], self._offsets[number], self._columns)

    def origins(self) -> Iterable[str]:
        """The origin of each sample, in order."""
        return (origin_or_name(self[number]) for number in range(len(self)))


def _samples(path: Path) -> Iterator[int]:
    """Yield the offset of each sample's first header. Raises DataError."""
    try:
        with mapped(path) as data:
            for group in groups(members(data)):
                yield group.offset
    except DataError as error:
        raise DataError(f"{path} cannot be read as a tar: {error}: repair or remove it") from None
