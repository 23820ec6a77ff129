"""The one reader of a video's frames: validation, verification, cutting, re-encoding and training use it.

in_sequence   decodes from the first packet on, as a player does: the reference for everything else
from_entry    decodes from a later key frame and leaves out frames that nobody wants or refers to
"""

from collections.abc import Collection, Iterable, Iterator

import av

from data_tools.errors import BadVideo
from data_tools.video.complete import Receipts
from data_tools.video.container import usual_step
from data_tools.video.stamps import Clock

# Decoders that can skip a frame to which no other refers, and decide so for each packet. libdav1d decides once.
SKIPPING = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"})

# A decoder raises at damage, also where only a checksum in the data shows it.
STRICT = "crccheck+bitstream+buffer+explode"

# Packets after an entry whose frames must all come out: a decoder that waits for a clean picture drops some of them.
PROBE = 4


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
        stream.codec_context.options = {"err_detect": STRICT}
    clock = Clock(usual_step(stream))
    for packet in _and_flush(packets):
        if packet is not None and receipts is not None:
            receipts.sent(packet)
        for frame in stream.codec_context.decode(packet):
            if receipts is not None:
                receipts.given(frame)
            yield clock.stamp(frame), sound(frame)


def from_entry(
    context: av.VideoCodecContext, packets: Iterable[av.Packet], wanted: Collection[int]
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


def sound(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame. Raises BadVideo if the decoder calls it damaged."""
    if frame.is_corrupt:
        raise BadVideo("corrupt", "a frame is damaged")
    return frame


def _and_flush(packets: Iterable[av.Packet]) -> Iterator[av.Packet | None]:
    """The packets, and None, at which a decoder returns the frames that it still holds."""
    yield from packets
    yield None
