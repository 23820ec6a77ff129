"""The one reader of a video's frames: validation, verification, cutting, re-encoding and training use it.

in_sequence   decodes from the first packet on, as a player does: the reference for everything else
from_entry    decodes from a later key frame and leaves out frames that nobody wants or refers to
enters        whether `from_entry` gives the frames of `in_sequence`, found out by doing both
"""

from collections.abc import Collection, Iterable, Iterator

import av
import numpy as np
from isal.isal_zlib import crc32

from data_tools.errors import BadVideo
from data_tools.video.complete import Receipts
from data_tools.video.container import Source, codec_of, opened, time_base
from data_tools.video.packets import entries
from data_tools.video.stamps import Clock

# Decoders that can skip a frame to which no other refers, and decide so for each packet. libdav1d decides once.
SKIPPING = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"})

# Packets after an entry whose frames must all come out: a decoder that waits for a clean picture drops some of them.
PROBE = 16


def in_sequence(
    stream: av.VideoStream, packets: Iterable[av.Packet], receipts: Receipts | None = None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode packets in order.

    Args:
        stream: the packets' stream.
        packets: see `packets.decodable`.
        receipts: notes what comes of each packet. It also makes the decoder strict: damage that it would hide raises.

    Yields:
        (timestamp in units of the time base, frame) for every shown frame; timestamps never fall.

    Raises:
        BadVideo: a frame is damaged, or the timestamps contradict the order of the frames.
    """
    if receipts is not None:
        stream.codec_context.options = {"err_detect": "explode"}
    clock = Clock(_usual_step(stream))
    for packet in _and_flush(packets):
        if packet is not None and receipts is not None:
            receipts.sent(packet)
        for frame in stream.codec_context.decode(packet):
            if receipts is not None:
                receipts.given(frame)
            yield clock.stamp(frame), sound(frame)


def from_entry(
    context: av.VideoCodecContext, packets: Iterable[av.Packet], wanted: Collection[int | None]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode packets from a key frame on, with a decoder that has seen no others.

    Args:
        context: the decoder.
        packets: from a key frame on, in decoding order; their timestamps are those of the frames.
        wanted: timestamps of frames that must be decoded; may shrink meanwhile.

    Yields:
        (timestamp, frame) for each frame that comes out, wanted or not.

    Raises:
        BadVideo: a wanted frame is damaged.
    """
    skips = context.codec.canonical_name in SKIPPING
    for packet in _and_flush(packets):
        if skips and packet is not None:
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        for frame in context.decode(packet):
            if frame.pts is not None:
                yield frame.pts, sound(frame) if frame.pts in wanted else frame


def enters(source: Source, stream: av.VideoStream, packets: list[av.Packet], prints: dict[int, int]) -> bool:
    """Whether decoding can begin at each of the stream's `entries` with the right frames.

    Frames that the decoder skips are not compared: they are decoded from frames that are.

    Args:
        source: the video; it is opened again, for decoders that have seen nothing.
        stream: the packets' stream.
        packets: all that are decoded.
        prints: `fingerprint` of each frame of `in_sequence` by timestamp, at least from `first_print` on.
    """
    begins = entries(packets, stream)
    starts = [packets[begin].pts for begin in begins]
    first = first_print(stream, packets)
    for begin, start, end in zip(begins, starts, [*starts[1:], float("inf")]):
        if start is None or end is None or first is None or start < first:
            continue
        if not _enters_at(source, packets[begin:], start, end, prints):
            return False
    return True


def _enters_at(source: Source, packets: list[av.Packet], start: int, end: float, prints: dict[int, int]) -> bool:
    part = packets[: _stop(packets, end)]
    probed = {packet.pts for packet in part[:PROBE]}
    missing = {stamp for stamp in probed if stamp is not None and start <= stamp < end and stamp in prints}
    try:
        with opened(source) as stream:
            for stamp, frame in from_entry(stream.codec_context, part, probed):
                if start <= stamp < end and prints.get(stamp) != fingerprint(frame):
                    return False
                missing.discard(stamp)
    except BadVideo:
        return False
    return not missing


def first_print(stream: av.VideoStream, packets: list[av.Packet]) -> int | None:
    """The timestamp from which `enters` compares frames; None if it compares none.

    In HEVC a frame that is skipped may have been referred to from a higher temporal layer, so the frames after the
    first key frame are compared too.
    """
    begins = entries(packets, stream)
    if codec_of(stream) == "hevc":
        return packets[0].pts
    return packets[begins[1]].pts if len(begins) > 1 else None


def fingerprint(frame: av.VideoFrame) -> int:
    """A checksum of the frame's pixels and of what decides how they are shown."""
    crc = crc32(repr((frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)).encode())
    components = frame.format.components
    if len(components) != len(frame.planes) or any(plane.line_size <= 0 for plane in frame.planes):
        return crc32(frame.to_ndarray(format="rgb24", threads=1), crc)
    for component, plane in zip(components, frame.planes):
        pixels = np.frombuffer(memoryview(plane), np.uint8)
        rows = pixels[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)
        crc = crc32(np.ascontiguousarray(rows[:, : plane.width * (-(-component.bits // 8))]), crc)
    return crc


def sound(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame. Raises BadVideo if the decoder calls it damaged."""
    if frame.is_corrupt:
        raise BadVideo("corrupt", "a frame is damaged")
    return frame


def _and_flush(packets: Iterable[av.Packet]) -> Iterator[av.Packet | None]:
    """The packets, and None, at which a decoder returns the frames that it still holds."""
    yield from packets
    yield None


def _stop(packets: list[av.Packet], end: float) -> int:
    """The number of packets needed for the frames before `end`, the timestamp of a key frame or infinity.

    Some of them may stand after that key frame and refer to it (an open GOP).
    """
    past = [index for index, packet in enumerate(packets) if packet.pts is not None and packet.pts >= end]
    return next((later for earlier, later in zip(past, past[1:]) if later == earlier + 1), len(packets))


def _usual_step(stream: av.VideoStream) -> int:
    """The time between two frames in units of the time base, at least 1."""
    return max(1, round(1 / (stream.average_rate * time_base(stream)))) if stream.average_rate else 1
