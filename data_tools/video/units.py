"""What the units (NAL units) of H.264 and HEVC tell of a packet without decoding it."""

from collections.abc import Iterable, Iterator

import av

# The byte of an "avcC" or "hvcC" record whose last two bits are the size of a unit's length, minus 1.
LENGTH_AT = {"h264": 4, "hevc": 21}

# Types of units. Of H.264: an IDR picture. Of HEVC: pictures of random access, and the first that holds no picture.
IDR = 5
RANDOM_ACCESS = range(16, 24)
NO_PICTURE = 32


def begins_afresh(packet: av.Packet, codec: str, extradata: bytes | None) -> bool:
    """Whether no frame that is shown after the packet's refers to one before it; False where this is not known.

    Args:
        packet: length-prefixed units, as in MP4, if the extradata are a record; else units after start codes.
        codec: FFmpeg's name.
        extradata: the decoder's.
    """
    if codec == "h264":
        return any(head[0] & 31 == IDR for head in _heads(packet, codec, extradata))
    return codec == "hevc" and any(head[0] >> 1 & 63 in RANDOM_ACCESS for head in _heads(packet, codec, extradata))


def has_layers(packets: Iterable[av.Packet], extradata: bytes | None) -> bool:
    """Whether packets of HEVC hold pictures of a higher temporal layer, which may refer to any picture below it."""
    heads = (head for packet in packets for head in _heads(packet, "hevc", extradata))
    return any(head[0] >> 1 & 63 < NO_PICTURE and head[1] & 7 > 1 for head in heads)


def _heads(packet: av.Packet, codec: str, extradata: bytes | None) -> Iterator[bytes]:
    """The first two bytes of each unit."""
    data, length_at = bytes(packet), LENGTH_AT[codec]
    if not extradata or extradata[0] != 1 or len(extradata) <= length_at:
        yield from (unit[:2] for unit in data.split(b"\0\0\1")[1:] if len(unit) > 1)
        return
    size, at = (extradata[length_at] & 3) + 1, 0
    while at + size + 1 < len(data):
        yield data[at + size : at + size + 2]
        at += size + int.from_bytes(data[at : at + size])
