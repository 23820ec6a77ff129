"""Decode part of a long video by seeking."""

import math
from collections.abc import Iterator
from itertools import chain

import av

from data_tools.errors import BadVideo
from data_tools.video.decode import TIE, Source, checked_stamp, container_of, opened, time_base

# Seek to this many seconds before the start of the part: some indices hold decoding times, which are earlier than
# presentation times.
SEEK_MARGIN = 1.0


def part_frames(source: Source, start: float, end: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield (time, frame) for the frames in [start, end), as coded.

    Only this part is read and checked; the rest of the recording may be damaged.

    Args:
        source: the whole video.
        start: seconds from the beginning of the whole.
        end: as `start`.

    Raises:
        BadVideo: the part cannot be decoded in full.
    """
    for margin in (SEEK_MARGIN, math.inf):
        begun = False
        try:
            for frame in _frames_from(source, start - margin, start, end):
                begun = True
                yield frame
            return
        except BadVideo:
            # The strict decoder cannot start in the middle of some streams, such as H.264 without IDR frames. Decode
            # those from the beginning.
            if begun or margin == math.inf:
                raise


def _frames_from(source: Source, entry: float, start: float, end: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """As `part_frames`; decodes from the last key frame before `entry`, in seconds, or from the start if it is ≤ 0."""
    with opened(source) as stream:
        stream.codec_context.options = {"err_detect": "explode"}
        container, unit, origin = container_of(stream), time_base(stream), stream.start_time or 0
        promised: set[int] = set()  # timestamps of packets whose frames have not come yet
        packets: Iterator[av.Packet] = container.demux(stream)
        if entry > 0:
            container.seek(origin + int(entry / unit), stream=stream)
            packets = _with_key_frame(packets, origin + int(start / unit))
        for packet in _from_key_frame(packets):
            if packet.is_corrupt:
                raise BadVideo("truncated", "the data ends, or has a hole, inside a frame")
            if packet.pts is not None and not packet.is_discard:
                promised.add(packet.pts)
            for frame in packet.decode():
                shown = checked_stamp(frame, "a frame of the part")
                promised.discard(shown)
                if any(stamp < shown for stamp in promised):
                    raise BadVideo("missing_frames", "not all frames of the part decode")
                time = float((shown - origin) * unit)
                if time >= end - TIE:
                    return
                if time >= start - TIE:
                    yield time, frame
        if promised:
            raise BadVideo("missing_frames", "not all frames of the part decode")


def _with_key_frame(packets: Iterator[av.Packet], needed: int) -> Iterator[av.Packet]:
    """The packets from the next key frame on. Raises BadVideo if it is shown after the timestamp `needed`."""
    stamp, key = _next_key_frame(packets)
    if key is None or stamp > needed:
        raise BadVideo("no_keyframe", "no key frame before the part")
    return chain([key], packets)


def _from_key_frame(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """The packets from the next key frame on, without those shown before it."""
    start, key = _next_key_frame(packets)
    if key is None:
        raise BadVideo("no_keyframe", "no frame can be decoded: the stream has no key frame")
    yield key
    yield from (packet for packet in packets if packet.pts is None or packet.pts >= start)


def _next_key_frame(packets: Iterator[av.Packet]) -> tuple[int, av.Packet | None]:
    """(timestamp, packet) of the next key frame with a timestamp; (0, None) if there is none."""
    for packet in packets:
        if packet.is_keyframe and packet.pts is not None:
            return packet.pts, packet
    return 0, None
