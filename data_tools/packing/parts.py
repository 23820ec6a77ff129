"""Decode part of a long video by seeking."""

from collections.abc import Iterator
from itertools import chain

import av

from data_tools.errors import BadVideo
from data_tools.video.complete import Receipts
from data_tools.video.container import Source, container_of, opened, time_base
from data_tools.video.display import displayed
from data_tools.video.interlace import deinterlaced
from data_tools.video.packets import decodable, packets_of
from data_tools.video.reader import in_sequence
from data_tools.video.times import TIE

# Seek to this many seconds before the start of the part: some indices hold decoding times, which are earlier than
# presentation times.
SEEK_MARGIN = 1.0

# AVI holds no presentation times. Those of its frames are guessed from the order, which is known from the start only.
GUESSED_TIMES = "avi"


def part_frames(source: Source, start: float, end: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield (time, frame) for the frames in [start, end), as displayed; all of one size.

    Only this part is read and checked; the rest of the recording may be damaged.

    Args:
        source: the whole video.
        start: seconds from the first shown frame of the whole.
        end: as `start`.

    Raises:
        BadVideo: the part cannot be decoded in full.
    """
    for seeks in (True, False):
        begun = False
        try:
            for frame in _frames(source, start, end, seeks):
                begun = True
                yield frame
            return
        except BadVideo:
            # Some streams cannot be entered, such as H.264 without IDR frames. Decode those from the beginning.
            if begun or not seeks:
                raise


def _frames(source: Source, start: float, end: float, seeks: bool) -> Iterator[tuple[float, av.VideoFrame]]:
    """As `part_frames`. `seeks`: begin at a key frame before the part, if there is a later one than the first."""
    with opened(source) as stream:
        unit, receipts = time_base(stream), Receipts(stream)
        frames = in_sequence(stream, decodable(packets_of(stream)), receipts)
        first = next(frames, None)
        if first is None:
            raise BadVideo("no_frames", "no frame decodes")
        origin = first[0]
        frames = chain([first], frames)
        if seeks and start > SEEK_MARGIN and stream.container.format.name != GUESSED_TIMES:
            receipts = Receipts(stream)
            frames = _entered(stream, origin + int((start - SEEK_MARGIN) / unit), origin + int(start / unit), receipts)
        stamps, ended = [], True
        for stamp, frame in displayed(deinterlaced(frames), stream):
            stamps.append(stamp)
            time = float((stamp - origin) * unit)
            if time >= end - TIE:
                ended = False
                break
            if time >= start - TIE:
                yield time, frame
        if len(stamps) > 1:
            receipts.check(stamps, ended)


def _entered(
    stream: av.VideoStream, entry: int, needed: int, receipts: Receipts
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames from the last key frame before the timestamp `entry` on.

    The decoder has seen the beginning: some files say only there how all frames are coded.

    Raises:
        BadVideo: the first frame that comes out is not that key frame, or it is shown after the timestamp `needed`.
    """
    stream.codec_context.flush_buffers()
    container_of(stream).seek(entry, stream=stream)
    packets = decodable(packets_of(stream))
    key = next(packets)
    frames = in_sequence(stream, chain([key], packets), receipts)
    first = next(frames, None)
    if key.pts is None or key.pts > needed or first is None or first[0] != key.pts:
        raise BadVideo("no_keyframe", "no key frame before the part gives a clean picture")
    return chain([first], frames)
