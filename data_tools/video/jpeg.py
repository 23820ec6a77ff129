"""A second opinion on JPEGs: libjpeg, with which Pillow reads them, makes up what damage has lost, without an error.

FFmpeg's decoder raises an error at invalid codes and at data that ends too early. After most damage the codes are valid
again, but a few blocks are missing or too many. With one scan and no restarts that shows at the end of the data. It
must be used up, no less and no more: the picture depends on its last bytes, and not on bytes that are put behind it.

Damage that costs no block cannot be told from a picture: JPEGs have no checksums.
"""

import re
from collections.abc import Iterator

import av
from av.error import InvalidDataError

from data_tools.errors import BadVideo
from data_tools.video.second import picture_print

BEGIN, END = b"\xff\xd8", b"\xff\xd9"
SCAN, RESTARTS = 0xDA, 0xDD  # kinds of segments
TEXTS = frozenset({*range(0xE0, 0xF0), 0xFE})  # application data and comments: no part of the picture
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # one for each way of coding
ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a segment
SEQUENTIAL, PROGRESSIVE = frozenset({0xC0, 0xC1}), 0xC2  # the ways that FFmpeg knows
LEFT_OVER = 16  # bytes: some writers put a few too many
SHORT = 100  # bytes
TURNED = (0xFF, 0x5A)  # bits of each byte; in a white or black corner not every change shows

_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_BEHIND_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # no stuffed byte and no restart


def check_jpeg(data: bytes) -> None:
    """Raise BadVideo if FFmpeg finds a JPEG damaged. One that FFmpeg cannot decode at all passes."""
    segments = [(kind, body) for kind, body in _segments(data) if kind not in TEXTS]
    frames = [body for kind, body in segments if kind in FRAMES]
    if len(frames) != 1 or len(frames[0]) < 10 or frames[0][1] not in SEQUENTIAL | {PROGRESSIVE}:
        return
    try:
        _check(segments, frames[0])
    except av.FFmpegError:  # not of damage: what FFmpeg has no decoder for
        pass


def _check(segments: list[tuple[int, bytes]], frame: bytes) -> None:
    """As `check_jpeg`. Raises FFmpegError if FFmpeg has no decoder for this kind of JPEG."""
    coded = b"".join(body for _, body in segments)
    picture = _picture(coded)
    if picture is None:
        raise BadVideo("bad_image", "a second decoder finds its data damaged")
    if not picture:
        return
    kinds = [kind for kind, _ in segments]
    of_planes = frame[9] in (1, 3)  # components: a fourth one would be left out of the comparison
    if frame[1] not in SEQUENTIAL or RESTARTS in kinds or kinds.count(SCAN) != 1 or kinds[-1] != SCAN or not of_planes:
        return
    if _picture(coded + bytes([0x55] * 32)) != picture:
        raise BadVideo("bad_image", "its data ends before its picture")
    scan = segments[-1][1]
    tail = scan.replace(b"\xff\x00", b"\xff")[-LEFT_OVER:]
    # Of a short scan most blocks may lie outside the picture. Some writers fill up with zeros, which may also be data.
    if len(scan) < SHORT or not tail.strip(b"\x00\xff"):
        return
    begun = coded[: -len(_stuffed(tail))]
    if all(_picture(begun + _stuffed(bytes(byte ^ bits for byte in tail))) == picture for bits in TURNED):
        raise BadVideo("bad_image", "its picture ends before its data")


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, bytes from the marker on) of each segment of the first picture; a scan has its data with it."""
    at = len(BEGIN)
    while (marker := _MARKER.search(data, at)) and (kind := marker[1][0]) != END[1]:
        at = start = marker.end()
        if kind in ALONE:
            continue
        at += int.from_bytes(data[start : start + 2], "big")
        if kind == SCAN:
            behind = _BEHIND_SCAN.search(data, at)
            at = behind.start() if behind else len(data)
        yield kind, bytes([0xFF, kind]) + data[start:at]


def _picture(coded: bytes) -> int | None:
    """A checksum of the picture that FFmpeg decodes; 0 if it gives none, None if it finds damage."""
    context = av.codec.Codec("mjpeg", "r").create("video")
    context.thread_count = 1
    context.options = {"err_detect": "explode"}
    try:
        frames = [frame for packet in (av.Packet(BEGIN + coded + END), None) for frame in context.decode(packet)]
    except InvalidDataError:
        return None
    return sum(map(picture_print, frames))


def _stuffed(data: bytes) -> bytes:
    """Data as it stands in a scan, where no byte 0xFF may look like a marker."""
    return data.replace(b"\xff", b"\xff\x00")
