"""The frames of a part of a video, found by seeking: for clips that are cut out of long recordings."""

import math
from collections.abc import Iterator
from itertools import chain

import av

from data_tools.errors import BadVideo
from data_tools.video import TIE, Source, check_frame, opened

# Seconds before the start of a part at which to look for its key frame: an index may go by the time of decoding,
# which can lie that much before the time of display.
SEEK_MARGIN = 1.0


def part_frames(source: Source, start: float, end: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frames from `start` on and before `end` (seconds), as coded, with their times in the whole.

    Only what is needed for this part is read and checked: the rest of a long recording may be damaged. Raises BadVideo.
    """
    for margin in (SEEK_MARGIN, math.inf):
        begun = False
        try:
            for frame in _frames_from(source, start - margin, start, end):
                begun = True
                yield frame
            return
        except BadVideo:
            # The strict decoder refuses to enter some streams in the middle, such as H.264 without IDR frames.
            if begun or margin == math.inf:
                raise


def _frames_from(source: Source, entry: float, start: float, end: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """As `part_frames`, by decoding from the last key frame before `entry`, or from the beginning."""
    with opened(source) as stream:
        stream.codec_context.options = {"err_detect": "explode"}
        origin, promised = stream.start_time or 0, set()
        packets = stream.container.demux(stream)
        if entry > 0:
            stream.container.seek(origin + int(entry / stream.time_base), stream=stream)
            packets = _with_key_frame(packets, origin + int(start / stream.time_base))
        for packet in _from_key_frame(packets):
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


def _with_key_frame(packets: Iterator[av.Packet], needed: int) -> Iterator[av.Packet]:
    """The packets from the next key frame on, if it is shown no later than `needed`; BadVideo otherwise."""
    key = next((packet for packet in packets if packet.is_keyframe and packet.pts is not None), None)
    if key is None or key.pts > needed:
        raise BadVideo("no_keyframe", "no key frame before the part")
    return chain([key], packets)


def _from_key_frame(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """The packets from the next key frame on, without those that need frames from before it."""
    key = next((packet for packet in packets if packet.is_keyframe and packet.pts is not None), None)
    if key is None:
        raise BadVideo("no_keyframe", "no frame can be decoded: the stream has no key frame")
    yield key
    yield from (packet for packet in packets if packet.pts is None or packet.pts >= key.pts)
