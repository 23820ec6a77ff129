"""The packets of a stream: which of them are decoded, what they promise, and where decoding may begin."""

from collections.abc import Iterable, Iterator

import av

from data_tools.errors import BadVideo
from data_tools.video.container import container_of, time_base

# Key frames that follow an entry more closely are no entries, seconds: each entry is checked by a decode of its own.
ENTRY_SPACING = 1.0


def packets_of(stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets that hold data. An empty one repeats a frame or ends the stream; a decoder would stop at it."""
    return (packet for packet in container_of(stream).demux(stream) if packet.size)


def decodable(packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
    """The packets from the first key frame on, in decoding order, without those shown before it.

    Raises:
        BadVideo: there is no key frame.
    """
    packets = iter(packets)
    first = next((packet for packet in packets if packet.is_keyframe), None)
    if first is None:
        raise BadVideo("no_keyframe", "no frame can be decoded: the stream has no key frame")
    yield first
    yield from (p for p in packets if p.pts is None or first.pts is None or p.pts >= first.pts)


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
