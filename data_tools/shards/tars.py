"""Tars seen as bytes: which files lie where, and which of them make up a sample.

Reads what any tool writes: ustar, GNU and PAX headers, long names, sizes past 8 GiB, times with a fraction. `tarfile`
reads them too, at five times the cost, and a loader would pay that for each file of each sample. Offsets and sizes
are bytes.
"""

import mmap
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zlib import adler32

from data_tools.errors import DataError

BLOCK = tarfile.BLOCKSIZE
Buffer = bytes | mmap.mmap

# WebDataset's own rules: a key is all that stands before the base name's first dot; some names are no samples.
_KEY_AND_ENDING = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_SKIPPED = re.compile(r"__[^/]*__($|/)")

_PAX_RECORD = re.compile(rb"(\d{1,20}) ([^=]+)=")
_SPARSE = "a sparse file, whose bytes are not all there: pack the tar without --sparse"
_WITHOUT_BODY = b"123456"  # links, devices, folders, pipes: their size field counts nothing that follows


class Member(NamedTuple):
    """One regular file: `offset` of its first header (a long name has more than one), then its body."""

    name: str
    offset: int
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + _padded(self.size)


@dataclass(frozen=True)
class Group:
    """The neighbouring files of one key, by lower-case ending without the first dot ("mp4", "cls.txt").

    `length` reaches from the first header to the end of the last file's padding. An ending comes twice where the tar
    holds it twice.
    """

    key: str
    members: tuple[tuple[str, Member], ...]

    @property
    def offset(self) -> int:
        return self.members[0][1].offset

    @property
    def length(self) -> int:
        return self.members[-1][1].end - self.offset


@contextmanager
def mapped(path: Path) -> Iterator[Buffer]:
    """The bytes of a file, mapped rather than read: a tar may be larger than memory."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def members(data: Buffer, at: int = 0) -> Iterator[Member]:
    """The regular files of a tar from the header at `at` on, in order.

    Raises DataError, with the place, where `data` is no whole tar.
    """
    first, name, size = at, None, None  # name, size: what a header before the file's own has said
    while at < len(data):
        header = data[at : at + BLOCK]
        if not header.strip(b"\0"):
            return
        kind, length = _checked(header, at)
        start = at + BLOCK
        if kind == b"L":  # GNU: the name of the file that follows
            name = _text(data[start : start + length])
        elif kind in b"xX":  # PAX: what its header has no room for
            records = _pax_records(data[start : start + length], at)
            name, size = records.get(b"path", name), records.get(b"size", size)
        elif kind not in b"gK":  # neither PAX records of all files, which name none, nor the name of a link's target
            length = 0 if kind in _WITHOUT_BODY else length if size is None else size
            if kind in b"07\0" and start + length <= len(data):
                yield Member(_name(header) if name is None else name, first, start, length)
            first, name, size = start + _padded(length), None, None
        if start + length > len(data):
            raise DataError(f"byte {len(data)}: the tar ends inside a file that begins at byte {at}")
        at = start + _padded(length)


def groups(files: Iterable[Member]) -> Iterator[Group]:
    """Samples, as WebDataset makes them: neighbours of one key. Files without a key or an ending belong to none."""
    key, found = None, []
    for member in files:
        if (split := key_and_ending(member.name)) is None:
            continue
        if found and split[0] != key:
            yield Group(key, tuple(found))
            found = []
        key, ending = split
        found.append((ending, member))
    if found:
        yield Group(key, tuple(found))


def key_and_ending(name: str) -> tuple[str, str] | None:
    """What a file's name says of its place in a sample; None where it belongs to none."""
    match = _KEY_AND_ENDING.fullmatch(name)
    return None if match is None or _SKIPPED.match(name) else (match[1], match[2].lower())


def plain_file(header: bytes) -> tuple[str, int] | None:
    """Name and size where `header` is a file's own and needs none before it; None otherwise, and where damaged."""
    try:
        kind, size = _checked(header, 0)
    except DataError:
        return None
    return (_name(header), size) if kind in b"0\0" else None


def _checked(header: bytes, at: int) -> tuple[bytes, int]:
    """Kind and size from a header whose checksum is right."""
    try:
        checksum, size = _number(header[148:156]), _number(header[124:136])
    except ValueError:
        checksum, size = -1, -1
    if len(header) < BLOCK or size < 0 or checksum != _sum_of_bytes(header[:148] + b" " * 8 + header[156:]):
        raise DataError(f"byte {at}: no tar header: the tar is damaged, cut short or compressed")
    if header[156:157] == b"S":
        raise DataError(f"byte {at}: {_SPARSE}")
    return header[156:157], size


def _sum_of_bytes(header: bytes) -> int:
    """`sum` at a tenth of the cost: adler32's lower half is 1 + the sum, modulo what 256 bytes cannot reach."""
    return (adler32(header[:256]) & 0xFFFF) + (adler32(header[256:]) & 0xFFFF) - 2


def _number(field: bytes) -> int:
    """Octal digits, or GNU's binary form for what they cannot hold."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    return int(field.rstrip(b"\0 ").lstrip() or b"0", 8)


def _name(header: bytes) -> str:
    """The name in a file's own header; ustar puts leading folders of a longer one in a second field."""
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _pax_records(body: bytes, at: int) -> dict:
    """PAX records, of which "path" as str and "size" as int. Each is "LENGTH KEY=VALUE\\n"."""
    records, place = {}, 0
    while place < len(body) and body[place]:
        match = _PAX_RECORD.match(body, place)
        length = int(match[1]) if match else 0
        if match is None or place + length < match.end():
            raise DataError(f"byte {at}: a PAX header that cannot be read")
        if match[2].startswith(b"GNU.sparse"):
            raise DataError(f"byte {at}: {_SPARSE}")
        records[match[2]] = body[match.end() : place + length - 1]
        place += length
    try:
        records |= {key: read(records[key]) for key, read in _PAX_READ.items() if key in records}
    except ValueError:
        raise DataError(f"byte {at}: a PAX header that cannot be read") from None
    return records


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return size + -size % BLOCK


_PAX_READ = {b"path": _text, b"size": int}
