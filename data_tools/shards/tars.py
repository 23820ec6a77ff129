"""Tars as bytes: the position of each file, and the files of each sample.

Reads ustar, GNU and PAX headers, long names, sizes above 8 GiB and fractional times. `tarfile` does the same at five
times the cost, which a loader would pay for each file of each sample. Offsets and sizes are in bytes.
"""

import mmap
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from zlib import adler32

from data_tools.errors import DataError

BLOCK = tarfile.BLOCKSIZE
Buffer = bytes | mmap.mmap

# WebDataset's rules: the key ends at the first dot of the base name; names with __…__ belong to no sample.
_KEY_AND_ENDING = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_SKIPPED = re.compile(r"__[^/]*__($|/)")

_PAX_RECORD = re.compile(rb"(\d{1,20}) ([^=]+)=")
_SPARSE = "a sparse file, stored without its holes: pack the tar without --sparse"
_NOT_ZERO = re.compile(rb"[^\0]")
_WITHOUT_BODY = b"123456"  # links, devices, folders, pipes: no body follows, whatever the size field says


class Member(NamedTuple):
    """One regular file.

    Attributes:
        name: path in the tar.
        offset: start of the first header; a long name has several headers.
        start: start of the body.
        size: of the body.
    """

    name: str
    offset: int
    start: int
    size: int

    @property
    def end(self) -> int:
        """End of the padded body."""
        return self.start + _padded(self.size)


@dataclass(frozen=True)
class Group:
    """Consecutive files with one key: a sample.

    Attributes:
        key: the common key.
        members: (lower-case ending without the first dot, such as "mp4" or "cls.txt"; file). An ending may repeat.
    """

    key: str
    members: tuple[tuple[str, Member], ...]

    @property
    def offset(self) -> int:
        """Start of the first header."""
        return self.members[0][1].offset

    @property
    def length(self) -> int:
        """Bytes from the first header to the end of the last file's padding."""
        return self.members[-1][1].end - self.offset


@contextmanager
def mapped(path: Path) -> Iterator[Buffer]:
    """Memory-map a file, because a tar may be larger than memory."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def members(data: Buffer, at: int = 0, end: int | None = None) -> Iterator[Member]:
    """Yield the regular files of a tar, or of several that are concatenated, in order.

    Args:
        data: the tar.
        at: offset of the first header to read.
        end: offset from which no more headers are read; None for the end of `data`.

    Raises:
        DataError: `data` is not a complete tar; the message gives the offset.
    """
    first, name, size = at, None, None  # name, size: from a header that precedes the file's own header
    while at < (len(data) if end is None else end):
        header = data[at : at + BLOCK]
        if not header.strip(b"\0"):  # an end; tars may be concatenated
            at = first = _behind_zeros(data, at)
            continue
        kind, length = _checked(header, at)
        start = at + BLOCK
        if kind == b"L":  # GNU: the name of the next file
            name = _text(data[start : start + length])
        elif kind in b"xX":  # PAX: fields of the next file
            pax_name, pax_size = _pax_fields(data[start : start + length], at)
            name, size = name if pax_name is None else pax_name, size if pax_size is None else pax_size
        elif kind not in b"gK":  # g: PAX fields of all files, without names or sizes; K: name of a link's target
            length = 0 if kind in _WITHOUT_BODY else length if size is None else size
            if kind in b"07\0" and start + length <= len(data):
                yield Member(_name(header) if name is None else name, first, start, length)
            first, name, size = start + _padded(length), None, None
        if start + length > len(data):
            raise DataError(f"byte {len(data)}: the tar ends inside a file that begins at byte {at}")
        at = start + _padded(length)
    if first != at:
        raise DataError(f"byte {len(data)}: the tar ends inside a file that begins at byte {first}")


def _behind_zeros(data: Buffer, at: int) -> int:
    """The offset of the next block that is not all zeros, or the end."""
    step = 1 << 20
    while at < len(data) and not data[at : at + step].strip(b"\0"):
        at += step
    found = _NOT_ZERO.search(data, at)
    return len(data) if found is None else at + (found.start() - at) // BLOCK * BLOCK


def groups(files: Iterable[Member]) -> Iterator[Group]:
    """Yield samples by WebDataset's rule: consecutive files with one key. Skips files without a key or an ending."""
    keyed = ((*parts, member) for member in files if (parts := key_and_ending(member.name)))
    for key, neighbours in groupby(keyed, key=lambda file: file[0]):
        yield Group(key, tuple((ending, member) for _, ending, member in neighbours))


def key_and_ending(name: str) -> tuple[str, str] | None:
    """(key, lower-case ending) of a file name; None if the file belongs to no sample."""
    match = _KEY_AND_ENDING.fullmatch(name)
    return None if match is None or _SKIPPED.match(name) else (match[1], match[2].lower())


def plain_file(header: bytes) -> tuple[str, int] | None:
    """(name, size) if `header` is a sound header of a regular file; None otherwise."""
    try:
        kind, size = _checked(header, 0)
    except DataError:
        return None
    return (_name(header), size) if kind in b"0\0" else None


def _checked(header: bytes, at: int) -> tuple[bytes, int]:
    """(kind, size) of the header at offset `at`. Raises DataError if it is damaged or of a sparse file."""
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
    """`sum` at a tenth of the cost: adler32's lower half is 1 + the sum, modulo a number above any sum of 256 bytes."""
    return (adler32(header[:256]) & 0xFFFF) + (adler32(header[256:]) & 0xFFFF) - 2


def _number(field: bytes) -> int:
    """A number in octal digits, or in GNU's binary form for large values. Raises ValueError."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    return int(field.rstrip(b"\0 ").lstrip() or b"0", 8)


def _name(header: bytes) -> str:
    """The name in a file's header; ustar stores the leading folders of a long name in a second field."""
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _pax_fields(body: bytes, at: int) -> tuple[str | None, int | None]:
    """(path, size) in the PAX records of the header at `at`, None if absent. A record is "LENGTH KEY=VALUE\\n".

    Raises:
        DataError: the records are damaged, or the file is sparse.
    """
    records: dict[bytes, bytes] = {}
    place = 0
    while place < len(body) and body[place]:
        match = _PAX_RECORD.match(body, place)
        length = int(match[1]) if match else 0
        if match is None or place + length < match.end():
            raise DataError(f"byte {at}: a PAX header that cannot be read")
        if match[2].startswith(b"GNU.sparse"):
            raise DataError(f"byte {at}: {_SPARSE}")
        records[match[2]] = body[match.end() : place + length - 1]
        place += length
    path, size = records.get(b"path"), records.get(b"size")
    try:
        return None if path is None else _text(path), None if size is None else int(size)
    except ValueError:
        raise DataError(f"byte {at}: a PAX header that cannot be read") from None


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    """The size rounded up to whole blocks."""
    return size + -size % BLOCK
