"""Whether a file is all there: that its data reach the promised end, and that no frame between is missing."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import median

import av

from data_tools.errors import BadVideo
from data_tools.video.container import Source, codec_of, container_of, time_base
from data_tools.video.mpegts import is_join
from data_tools.video.packets import is_hidden

# A stream may end this much before its DURATION tag, seconds: rounding, or a last frame of unknown duration.
SLACK = 0.25

# A frame is missing where the time between two frames exceeds the usual one by more than this factor.
GAP = 1.5

# Packets before and behind a place where recordings were joined, among which frames must be close.
NEAR = 6

# A packet of MPEG-4 part 2 up to this size, bytes, holds no frame: it repeats one, or a frame is in the packet before.
NOT_CODED = 19


def check_end(stream: av.VideoStream, packets: Sequence[av.Packet], source: Source) -> None:
    """Raise BadVideo if the data end inside a packet, or before the end that the index or the DURATION tag gives.

    The header's frame count is no evidence: it includes frames that an edit list cuts away. Nor is the container's
    duration, which includes the sound and can be absurd. Matroska's DURATION tag belongs to the video stream alone.
    """
    for packet in packets:
        check_packet(stream, packet, source)
    # Matroska's index holds presentation times, other indices hold decoding times.
    matroska = stream.container.format.name.startswith("matroska")
    stamps = [packet.pts if matroska else packet.dts for packet in packets]
    last = max((stamp for stamp in stamps if stamp is not None), default=0)
    if stream.index_entries and stream.index_entries[-1].timestamp > last:
        raise BadVideo("truncated", "the index lists frames that come after the end of the data")
    if tag := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(float, tag.groups())
        told = 3600 * hours + 60 * minutes + seconds
        ends = (packet.pts + (packet.duration or 0) for packet in packets if packet.pts is not None)
        found = float(max(ends, default=0) * time_base(stream))
        if told > found + SLACK:
            raise BadVideo("truncated", f"the header promises {told:.1f} s, the data end at {found:.1f} s")


def check_packet(stream: av.VideoStream, packet: av.Packet, source: Source) -> None:
    """Raise BadVideo if the packet is incomplete. FFmpeg also says so where transport streams were joined."""
    if packet.is_corrupt:
        if container_of(stream).format.name != "mpegts" or not is_join(source, stream.id, packet.pos):
            raise BadVideo("truncated", "the data end, or have a hole, inside a frame")


class Receipts:
    """Which packets have given a frame. Fewer frames than packets can be right: two fields make one frame.

    Args:
        stream: the packets' stream.
        source: its file.
    """

    def __init__(self, stream: av.VideoStream, source: Source):
        stream.codec_context.copy_opaque = True
        self._stream, self._source = stream, source
        self._codec = codec_of(stream)
        self._sent: list[tuple[int | None, bool]] = []  # (pts, may be without a frame of its own)
        self._joints: list[int] = []  # numbers of packets near which recordings were joined
        self._given: dict[object, bool] = {}  # number of a packet that gave a frame -> the frame is interlaced

    def sent(self, packet: av.Packet) -> None:
        """Note a packet; call it before the packet is decoded. Raises BadVideo if it is incomplete."""
        check_packet(self._stream, packet, self._source)
        if packet.is_corrupt:
            self._joints.append(len(self._sent))
        packet.opaque = len(self._sent)
        small = self._codec == "mpeg4" and packet.size <= NOT_CODED
        self._sent.append((packet.pts, packet.is_discard or is_hidden(packet, self._codec) or small))

    def given(self, frame: av.VideoFrame) -> None:
        """Note a frame, as the decoder returned it."""
        self._given[frame.opaque] = frame.interlaced_frame

    def check(self, stamps: Sequence[int], ended: bool = True) -> None:
        """Raise BadVideo if a packet gave no frame and leaves a gap after the first frame.

        Args:
            stamps: timestamps of the shown frames, ascending, in units of the time base; at least two.
            ended: whether the decoder has returned all its frames.
        """
        usual = median(later - earlier for earlier, later in zip(stamps, stamps[1:]))
        lost = [pts for number, (pts, idle) in enumerate(self._sent) if not idle and self._is_lost(number)]
        missing = [
            pts for pts in lost if pts is not None and (ended or pts < stamps[-1]) and _in_gap(pts, stamps, usual)
        ]
        if missing:
            raise BadVideo("missing_frames", f"{len(missing)} of {len(self._sent)} frames do not decode")

        if any(self._is_hole(number, stamps, usual) for number in self._joints):
            raise BadVideo("truncated", "frames are missing where the recordings were joined")

    def _is_hole(self, number: int, stamps: Sequence[int], usual: float) -> bool:
        """Whether frames are far from one another around a packet near which recordings were joined."""
        near = [pts for pts, _ in self._sent[max(0, number - NEAR) : number + NEAR] if pts is not None]
        shown = [stamp for stamp in stamps if near and min(near) <= stamp <= max(near)]
        return any(later - earlier > GAP * usual for earlier, later in zip(shown, shown[1:]))

    def _is_lost(self, number: int) -> bool:
        """Whether the packet gave no frame and is not the second field of the frame that the packet before it gave."""
        return number not in self._given and not self._given.get(number - 1, False)


def _in_gap(pts: int, stamps: Sequence[int], usual: float) -> bool:
    """Whether a frame belongs at `pts`: later than the first one, at no other's time, and others are far."""
    place = bisect_left(stamps, pts)
    if place == 0 or bisect_right(stamps, pts) > place:
        return False
    return place == len(stamps) or stamps[place] - stamps[place - 1] > GAP * usual
