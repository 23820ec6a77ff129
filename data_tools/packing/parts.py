"""Decode part of a long video by seeking."""

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path

import av

from data_tools.errors import BadVideo
from data_tools.video.complete import Receipts
from data_tools.video.container import Source, container_of, opened, time_base
from data_tools.video.display import displayed
from data_tools.video.interlace import deinterlaced
from data_tools.video.packets import decodable, is_joinable, packets_of, recordings_in
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
        unit, receipts = time_base(stream), Receipts(stream, source)
        packets = decodable(packets_of(stream), stream)
        # The chain keeps the rest of the packets when these frames are given up.
        frames = in_sequence(stream, chain(packets), receipts)
        first = next(frames, None)
        if first is None:
            raise BadVideo("no_frames", "no frame decodes")
        origin = first[0]
        frames = chain([first], frames)
        if seeks and start > SEEK_MARGIN and stream.container.format.name != GUESSED_TIMES:
            receipts = Receipts(stream, source)
            packets = _from_near(source, stream, packets, origin + int((start - SEEK_MARGIN) / unit))
            frames = _entered(stream, packets, origin + int(start / unit), receipts)
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


def _from_near(source: Source, stream: av.VideoStream, packets: Iterable[av.Packet], entry: int) -> Iterator[av.Packet]:
    """The packets to decode, from the last key frame before the timestamp `entry` on.

    Args:
        source: the video.
        stream: the packets' stream.
        packets: those that have not been decoded. They are read on, without decoding, where seeking is no use.
        entry: in units of the stream's time base.
    """
    if is_joinable(stream) and (isinstance(source, bytes) or _is_joined(source, os.stat(source).st_mtime_ns)):
        return decodable(_from_last_key(packets, entry), stream)
    container_of(stream).seek(entry, stream=stream)
    return decodable(packets_of(stream), stream)


@lru_cache(maxsize=16)
def _is_joined(path: str | Path, written: int) -> bool:
    """Whether the times of a video jump. A long video is read for this once, and not for each of its parts.

    Args:
        path: the video.
        written: its time of modification.
    """
    with opened(path) as stream:
        return recordings_in(packets_of(stream), stream) > 1


def _from_last_key(packets: Iterable[av.Packet], entry: int) -> Iterator[av.Packet]:
    """The packets from the last key frame up to the timestamp `entry` on; none if there is no such key frame."""
    packets, held = iter(packets), list[av.Packet]()
    for packet in packets:
        early = packet.pts is not None and packet.pts <= entry
        if packet.is_keyframe and early:
            held = [packet]
        elif held:
            held.append(packet)
        if packet.is_keyframe and not early:
            break
    yield from held
    if held:
        yield from packets


def _entered(
    stream: av.VideoStream, packets: Iterator[av.Packet], needed: int, receipts: Receipts
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames of packets that begin at a key frame.

    The decoder has seen the beginning: some files say only there how all frames are coded.

    Raises:
        BadVideo: the first frame that comes out is not that key frame, or it is shown after the timestamp `needed`.
    """
    stream.codec_context.flush_buffers()
    key = next(packets)
    frames = in_sequence(stream, chain([key], packets), receipts)
    first = next(frames, None)
    if key.pts is None or key.pts > needed or first is None or first[0] != key.pts:
        raise BadVideo("no_keyframe", "no key frame before the part gives a clean picture")
    return chain([first], frames)
