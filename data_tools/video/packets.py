"""The packets of a stream: which of them are decoded, what they promise, and where decoding may begin."""

from collections.abc import Iterable, Iterator
from itertools import groupby

import av

from data_tools.errors import BadVideo
from data_tools.video.container import container_of, time_base, usual_step

# Key frames that follow an entry more closely are no entries, seconds: each entry is checked by a decode of its own.
ENTRY_SPACING = 1.0

# Formats whose files may be joined end to end, so that decoding times jump: on by more than AHEAD, or back by more than
# BACK, seconds (as FFmpeg's program decides it, ffmpeg_demux.c).
JOINABLE = frozenset({"mpeg", "mpegts"})
AHEAD, BACK = 10.0, 0.1


def packets_of(stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets that hold data. An empty one repeats a frame or ends the stream; a decoder would stop at it."""
    return (packet for packet in container_of(stream).demux(stream) if packet.size)


def decodable(packets: Iterable[av.Packet], stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets that can be decoded, in decoding order.

    Those before the first key frame are left out, and those that follow it but are shown before it: they refer to
    frames that are lost. Where the times jump, two recordings were joined. The later one begins at a key frame of its
    own, and its packets get times that follow those of the earlier one.

    Args:
        packets: of the stream, in decoding order.
        stream: the packets' stream.

    Raises:
        BadVideo: there is no key frame.
    """
    begun, end = False, None
    for _, recording in groupby(packets, _Recordings(stream)):
        shift: int | None = None
        for packet in _from_key_frame(_with_own_times(recording, stream)):
            if shift is None:
                shift = 0 if end is None or packet.pts is None else end - packet.pts
            if packet.dts is not None:
                packet.dts += shift
            if packet.pts is not None:
                packet.pts += shift
                end = max(end or packet.pts, packet.pts + (packet.duration or usual_step(stream)))
            begun = True
            yield packet
    if not begun:
        raise BadVideo("no_keyframe", "no frame can be decoded: the stream has no key frame")


def is_joinable(stream: av.VideoStream) -> bool:
    """Whether the times of the stream's format may jump. Seeking by time then finds the wrong place."""
    return container_of(stream).format.name in JOINABLE


def recordings_in(packets: Iterable[av.Packet], stream: av.VideoStream) -> int:
    """How many recordings were joined. Arguments as in :func:`decodable`."""
    return sum(1 for _ in groupby(packets, _Recordings(stream)))


def promised(packets: Iterable[av.Packet], codec: str) -> list[int]:
    """Timestamps of the frames that the packets should show, ascending, in units of the time base."""
    return sorted(p.pts for p in packets if p.pts is not None and not p.is_discard and not is_hidden(p, codec))


def is_hidden(packet: av.Packet, codec: str) -> bool:
    """Whether the packet's frame is only a reference: an alternate reference frame of VP8 (RFC 6386, 9.1)."""
    return codec == "vp8" and not memoryview(packet)[0] & 0x10


def entries(packets: list[av.Packet], stream: av.VideoStream) -> list[int]:
    """Indices of the packets at which decoding may begin, ascending: the first, and key frames spaced from there."""
    spacing = ENTRY_SPACING / time_base(stream)
    found, last = [0], packets[0].pts
    for index, packet in enumerate(packets):
        if packet.is_keyframe and packet.pts is not None and last is not None and packet.pts >= last + spacing:
            found.append(index)
            last = packet.pts
    return found


class _Recordings:
    """Counts the jumps of a stream's times: call it with each packet, in decoding order, to learn its recording."""

    def __init__(self, stream: av.VideoStream):
        self._joinable = is_joinable(stream)
        self._ahead, self._back = AHEAD / time_base(stream), BACK / time_base(stream)
        self._number = 0
        self._last: tuple[int, int] | None = None  # decoding time of the packet before, and its end

    def __call__(self, packet: av.Packet) -> int:
        if packet.dts is not None and self._joinable:
            if self._last is not None:
                begin, end = self._last
                self._number += packet.dts > end + self._ahead or packet.dts < begin - self._back
            self._last = packet.dts, packet.dts + (packet.duration or 0)
        return self._number


def _with_own_times(recording: Iterable[av.Packet], stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets of one recording, none of which has a time of the next recording.

    Where the file does not say when a reference frame is shown, FFmpeg takes the decoding time of the next one. For the
    last reference frame of a recording that is a time of the next recording. It is shown behind all others instead.
    """
    held: list[av.Packet] = []
    for packet in recording:
        delay = 0 if packet.pts is None or packet.dts is None else packet.pts - packet.dts
        if held or (is_joinable(stream) and delay > AHEAD / time_base(stream)):
            held.append(packet)
        else:
            yield packet
    if held and held[-1].dts is not None:
        held[0].pts = held[-1].dts + (held[-1].duration or usual_step(stream))
    yield from held


def _from_key_frame(packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
    """The packets from the first key frame on, without those before the next one that are shown before the first."""
    first: int | None = None
    begun = leading = False
    for packet in packets:
        if packet.is_keyframe:
            first = first if begun else packet.pts
            begun, leading = True, not begun
        if begun and not (leading and packet.pts is not None and first is not None and packet.pts < first):
            yield packet
