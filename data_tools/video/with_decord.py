"""Frames by decord, for the clips that it reads right."""

import io
from collections.abc import Collection, Iterator, Sequence

import av
import torch

from data_tools.errors import BadVideo, DataError
from data_tools.video.container import Source
from data_tools.video.display import orientation, transfer_of


def decord_frames(source: Source, shown: Sequence[int], wanted: Collection[int]) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (timestamp, uint8 RGB (h, w, 3) after rotation) for each wanted frame, in order.

    Args:
        source: the video.
        shown: timestamps of all frames, ascending.
        wanted: timestamps.

    Raises:
        DataError: decord is not installed.
        BadVideo: decord cannot read the video.
    """
    try:
        import decord
    except ImportError as error:
        raise DataError("decoder 'decord' is not installed: pip install decord, or choose 'pyav'") from error
    try:
        # A new reader per call: a reader hangs if it is used after a fork.
        reader = decord.VideoReader(io.BytesIO(source) if isinstance(source, bytes) else str(source), num_threads=1)
        if len(reader) != len(shown):
            raise BadVideo("decord_unsupported", "decord reads another stream of this file: choose 'pyav'")
        for number, stamp in enumerate(shown):
            if stamp in wanted:
                yield stamp, torch.from_numpy(reader[number].asnumpy())
    except decord.DECORDError as error:
        raise BadVideo("corrupt", f"decord: {str(error).splitlines()[0]}") from error


def decord_is_right(
    stream: av.VideoStream, packets: Sequence[av.Packet], shown: Sequence[int], first: av.VideoFrame
) -> bool:
    """Whether decord 0.6 returns the right frames of this file.

    It silently returns wrong frames if the container has no index, if some packets are not shown, and if frames are
    shown before the key frame that precedes them in the file (an open GOP). It rotates frames, but it neither mirrors
    nor deinterlaces nor tone-maps them.

    Args:
        stream: the video.
        packets: all of them.
        shown: timestamps of all frames, ascending.
        first: the first frame.
    """
    if not stream.container.format.name.startswith(("mov", "matroska")) or len(shown) < len(packets):
        return False
    key = shown[0]
    for packet in packets:
        if packet.pts is None:
            return False
        key = packet.pts if packet.is_keyframe else key
        if packet.pts < key:
            return False
    return not first.interlaced_frame and not orientation(first).reflects and transfer_of(first) == "sdr"
