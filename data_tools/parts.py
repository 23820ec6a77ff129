"""The frames of a part of a video, found by seeking: for clips that are cut out of long recordings."""

from collections.abc import Iterator

import av

from .errors import BadVideo
from .video import TIE, Source, check_frame, opened

# Seconds before the start of a part at which to look for its key frame: an index may go by the time of decoding,
# which can lie that much before the time of display.
SEEK_MARGIN = 1.0


def part_frames(source: Source, start: float, end: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frames from `start` on and before `end` (seconds), as coded, with their times in the whole.

    Only this part is read and checked: the rest of a long recording may be damaged. Raises BadVideo.
    """
    with opened(source) as stream:
        stream.codec_context.options = {"err_detect": "explode"}
        origin, promised = stream.start_time or 0, set()
        for packet in _packets_from(stream, origin + int(start / stream.time_base)):
            if packet.is_corrupt:
                raise BadVideo("truncated", "the data ends, or has a hole, inside a frame")
            if packet.pts is not None and not packet.is_discard:
                promised.add(packet.pts)
            for frame in packet.decode():
                check_frame(frame, "a frame of the part")
                promised.discard(frame.pts)
                if any(stamp < frame.pts for stamp in promised):
                    raise BadVideo("missing_frames", "not all frames of the part decode")
                time = float((frame.pts - origin) * stream.time_base)
                if time >= end - TIE:
                    return
                if time >= start - TIE:
                    yield time, frame
        if promised:
            raise BadVideo("missing_frames", "not all frames of the part decode")


def _packets_from(stream: av.VideoStream, stamp: int) -> Iterator[av.Packet]:
    """The packets from a key frame shown no later than `stamp`, without those that need frames from before it."""
    container, margin = stream.container, int(SEEK_MARGIN / stream.time_base)
    for target in (stamp - margin, stream.start_time or 0):
        try:
            container.seek(max(target, stream.start_time or 0), stream=stream)
        except av.FFmpegError:
            container.seek(0)
        packets = container.demux(stream)
        key = next((packet for packet in packets if packet.is_keyframe and packet.pts is not None), None)
        if key is not None and key.pts <= stamp:
            break
    if key is None:
        raise BadVideo("no_keyframe", "no frame can be decoded: the stream has no key frame")
    yield key
    yield from (packet for packet in packets if packet.pts is None or packet.pts >= key.pts)
