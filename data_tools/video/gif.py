"""The blocks of a GIF, which has a mark at its end. FFmpeg shows the last frame of a cut file as far as it goes."""

from collections.abc import Iterator
from itertools import islice

from data_tools.errors import BadVideo
from data_tools.video.container import Source, content

SIGNATURES = b"GIF87a", b"GIF89a"
HEAD = 13  # bytes of the signature and the screen's description
DESCRIPTION = 10  # bytes of an image's description, with its mark
EXTENSION, IMAGE, END = 0x21, 0x2C, 0x3B  # the marks with which blocks begin


def check_blocks(source: Source) -> None:
    """Raise BadVideo if the blocks are not whole up to the mark of the end. Bytes behind it are of no account."""
    for _ in _blocks(content(source)):
        pass


def is_still(data: bytes) -> bool:
    """Whether a file that begins as a GIF has one picture, as far as its blocks can be followed."""
    pictures = 0
    try:
        for _ in islice((mark for mark in _blocks(data) if mark == IMAGE), 2):
            pictures += 1
    except BadVideo:
        pass
    return pictures == 1


def _blocks(data: bytes) -> Iterator[int]:
    """Yield the mark of each block. Raises BadVideo where one is not whole."""
    try:
        at = HEAD + _palette(data[10])
        while (mark := data[at]) != END:
            if mark == EXTENSION:
                after = _after_parts(data, at + 2)
            elif mark == IMAGE:
                after = _after_parts(data, at + DESCRIPTION + _palette(data[at + DESCRIPTION - 1]) + 1)
            else:
                raise BadVideo("corrupt", f"the GIF has no block at byte {at}, where one should begin")
            yield mark
            at = after
    except IndexError as error:
        raise BadVideo("truncated", "the GIF ends before its end mark") from error


def _palette(flags: int) -> int:
    """The bytes of the palette that a description with these flags announces."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_parts(data: bytes, at: int) -> int:
    """The place behind the parts of a block: each tells its length in one byte, and an empty one is the last."""
    while length := data[at]:
        at += 1 + length
    return at + 1
