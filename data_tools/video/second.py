"""A second decoder for codecs whose first one hides damage.

FFmpeg's decoder of VP8 stops inside a damaged frame without an error. The rest of the picture is then what was in
memory before, which may differ from one decode to the next. libvpx raises an error instead. The two agree in every bit
of sound frames. An FFmpeg without libvpx leaves the check out, and one line says so.
"""

import sys
from collections.abc import Iterable, Sequence

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from zlib_ng.zlib_ng import crc32

from data_tools.errors import BadVideo
from data_tools.processes.child import FORK
from data_tools.video.container import codec_of

SECOND = {"vp8": "libvpx"}

_told = FORK.RawArray("b", 1)  # shared with the processes that are forked later: one of all says it


def second_decoder(stream: av.VideoStream) -> av.VideoCodecContext | None:
    """A fresh second decoder for a stream; None if its codec needs none or this FFmpeg has none."""
    codec = codec_of(stream)
    if codec not in SECOND:
        return None
    try:
        context = av.codec.Codec(SECOND[codec], "r").create("video")
    except UnknownCodecError:
        if not _told[0]:
            _told[0] = 1
            print(
                f"warning: this FFmpeg has no {SECOND[codec]}: damage inside the frames of {codec} clips may go "
                "unnoticed; PyAV's wheels have it",
                file=sys.stderr,
                flush=True,
            )
        return None
    context.thread_count = 1
    return context


def check_agreement(context: av.VideoCodecContext, packets: Iterable[av.Packet], pictures: Sequence[int]) -> None:
    """Raise BadVideo unless the decoder gives the pictures whose `picture_print` is given, in order."""
    try:
        theirs = [picture_print(frame) for packet in [*packets, None] for frame in context.decode(packet)]
    except av.FFmpegError as error:
        raise BadVideo("corrupt", f"a second decoder: {error.strerror or error}") from error
    if theirs != list(pictures):
        raise BadVideo("corrupt", "two decoders of it differ")


def picture_print(frame: av.VideoFrame) -> int:
    """A checksum of the pixels of 8-bit planes without alpha."""
    crc = 0
    for plane in frame.planes[:3]:
        rows = np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size]
        crc = crc32(np.ascontiguousarray(rows.reshape(plane.height, -1)[:, : plane.width]), crc)
    return crc
