"""Whether reading may begin at a clip's key frames: found out by doing so, and comparing with the sequential decode.

A key frame can fail to be one. A decoder may have needed what stands in the first packet only, or may wait for a clean
picture. A packet marked as a key frame may hold a picture from which later ones do not start afresh.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import av
import numpy as np
from zlib_ng.zlib_ng import crc32

from data_tools.errors import BadVideo
from data_tools.video.container import Source, codec_of, opened
from data_tools.video.packets import entries
from data_tools.video.reader import from_entry
from data_tools.video.units import begins_afresh, has_layers

# Packets after an entry whose frames must all come out and be right.
PROBE = 8

# Codecs whose key frames no later frame looks past, so that the first frames after one tell of all. In H.264 and HEVC
# that holds of some key frames, and in HEVC a skipped frame may still be referred to from a higher temporal layer.
CLEAN = frozenset({"vp8", "vp9", "av1", "mpeg1video", "mpeg2video", "mpeg4"})


@dataclass(frozen=True)
class Trial:
    """What is decoded to try one entry.

    Attributes:
        packets: from the entry on, in decoding order.
        probed: timestamps of the frames that must come out, all of them compared.
        compared: timestamps of the frames that are compared if the decoder does not skip them.
    """

    packets: list[av.Packet]
    probed: frozenset[int]
    compared: frozenset[int]


def trials(stream: av.VideoStream, packets: list[av.Packet]) -> list[Trial]:
    """What must be tried before the clip may be entered.

    Args:
        stream: the packets' stream.
        packets: all that are decoded, with the times at which their frames are shown.
    """
    begins = entries(packets, stream)
    ends: list[float] = [pts for begin in begins[1:] if (pts := packets[begin].pts) is not None]  # all of them have one
    codec, extradata = codec_of(stream), stream.codec_context.extradata
    layers = codec == "hevc" and has_layers(packets, extradata)
    found: list[Trial] = []
    for begin, end in zip(begins, [*ends, float("inf")]):
        if begin == 0 and codec != "hevc":
            continue  # this is the sequential decode itself
        part = packets[begin : _stop(packets, begin, end)]
        if codec in CLEAN or not layers and begins_afresh(part[0], codec, extradata):
            part = part[:PROBE]
        probed, compared = (_shown(some, part[0].pts, end) for some in (part[:PROBE], part))
        found.append(Trial(part, probed, compared))
    return found


def succeed(source: Source, tried: Iterable[Trial], prints: Mapping[int, int]) -> bool:
    """Whether all entries give the frames of the sequential decode.

    Args:
        source: the video; it is opened again, for decoders that have seen nothing.
        tried: the entries.
        prints: `fingerprint` of each compared frame of the sequential decode, by timestamp.
    """
    return all(_succeeds(source, trial, prints) for trial in tried)


def _succeeds(source: Source, trial: Trial, prints: Mapping[int, int]) -> bool:
    missing = trial.probed & prints.keys()
    came: set[int] = set()
    try:
        with opened(source) as stream:
            for stamp, frame in from_entry(stream.codec_context, trial.packets, trial.probed):
                if stamp in trial.compared and prints.get(stamp) != fingerprint(frame):
                    return False
                came.add(stamp)
    except BadVideo:
        return False
    return missing <= came


def fingerprint(frame: av.VideoFrame) -> int:
    """A checksum of the frame's pixels and of what decides how they are shown."""
    crc = crc32(repr((frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)).encode())
    components = frame.format.components
    if len(components) != len(frame.planes) or any(plane.line_size <= 0 for plane in frame.planes):
        return crc32(np.ascontiguousarray(frame.to_ndarray(format="rgb24", threads=1)), crc)
    for component, plane in zip(components, frame.planes):
        pixels = np.frombuffer(memoryview(plane), np.uint8)
        rows = pixels[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)
        crc = crc32(np.ascontiguousarray(rows[:, : plane.width * (-(-component.bits // 8))]), crc)
    return crc


def _shown(packets: list[av.Packet], start: int | None, end: float) -> frozenset[int]:
    """The timestamps in [start, end) of packets whose frames are shown."""
    stamps = (packet.pts for packet in packets if packet.pts is not None and not packet.is_discard)
    return frozenset(stamp for stamp in stamps if start is None or start <= stamp < end)


def _stop(packets: list[av.Packet], begin: int, end: float) -> int:
    """The index after the last packet needed for the frames from `begin` on before `end`, that of a key frame.

    Some of them may stand after that key frame and refer to it (an open GOP).
    """
    past = [n for n in range(begin, len(packets)) if (pts := packets[n].pts) is not None and pts >= end]
    return next((later for earlier, later in zip(past, past[1:]) if later == earlier + 1), len(packets))
