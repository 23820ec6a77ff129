"""Open a video file and find its video stream."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.stream import Disposition

from data_tools.errors import BadVideo

Source = bytes | str | Path

# No playlist formats: FFmpeg would open any local file or address that a playlist names.
CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif"

# Images in an MP4's boxes, by their brand. FFmpeg would show one tile of them, or an auxiliary picture.
HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif"))

# PyAV sets this flag of FFmpeg's: a frame without a time of display is shown when the next reference frame is decoded.
# That is the rule of MPEG-1 and MPEG-2. It is wrong for H.264 in AVI, which stores no such times: `stamps` finds them.
GENPTS = 1
FILLED_IN = frozenset({"mpeg", "mpegts"})  # the formats that keep the flag


@contextmanager
def opened(source: Source) -> Iterator[av.VideoStream]:
    """Open a file and give its video stream.

    Raises:
        BadVideo: the file cannot be opened, or FFmpeg raises an error in the body of the `with` statement.
    """
    head = _head(source)
    if not head:
        raise BadVideo("empty_file", "the file holds no bytes")
    if head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS:
        raise BadVideo("image_format", "a HEIC or AVIF image: save it as JPEG, PNG or WebP")
    try:
        container = av.open(
            io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}",  # a name with a colon is no address
            "r",
            options={"format_whitelist": CONTAINERS},
            metadata_errors="ignore",
        )
    except av.FFmpegError as error:
        if head[4:8] == b"ftyp":
            raise BadVideo("truncated", "an MP4 that does not open: its index (moov) is lost or damaged") from error
        raise BadVideo(
            "not_a_video", "no known video container, and no image of a known kind (JPEG, PNG, WebP, BMP, GIF)"
        ) from error
    with container:
        if container.format.name not in FILLED_IN:
            container.flags &= ~GENPTS
        stream = _main_stream(container)
        # Threaded decoding would delay frames, and the callers' processes already use all cores.
        stream.codec_context.thread_count = 1
        try:
            yield stream
        except av.FFmpegError as error:
            raise BadVideo("corrupt", error.strerror or str(error)) from error


def content(source: Source) -> bytes:
    """The bytes of the file."""
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def container_of(stream: av.VideoStream) -> InputContainer:
    """The open file of a stream that `opened` gave."""
    return cast(InputContainer, stream.container)


def time_base(stream: av.VideoStream) -> Fraction:
    """The unit of the stream's timestamps, seconds.

    Raises:
        BadVideo: the stream has none.
    """
    if stream.time_base is None:
        raise BadVideo("no_timestamps", "the stream has no time base")
    return stream.time_base


def usual_step(stream: av.VideoStream) -> int:
    """The time between two frames in units of the time base, at least 1."""
    return max(1, round(1 / (stream.average_rate * time_base(stream)))) if stream.average_rate else 1


def codec_of(stream: av.VideoStream) -> str:
    """FFmpeg's name of the codec, whatever the decoder: "av1" for "libdav1d"."""
    return stream.codec_context.codec.canonical_name


def _head(source: Source) -> bytes:
    """The first 12 bytes."""
    if isinstance(source, bytes):
        return source[:12]
    try:
        with open(source, "rb") as file:
            return file.read(12)
    except OSError as error:
        raise BadVideo("unreadable", f"{source}: {error.strerror}") from error


def _main_stream(container: InputContainer) -> av.VideoStream:
    """The video that FFmpeg calls the best stream: what the file marks decides first. A cover picture is no video."""
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise BadVideo("no_video_stream", "no stream of the file is a video")
    best = container.streams.best("video")
    stream = next((stream for stream in streams if stream is best), streams[0])
    if stream.codec_context is None:
        raise BadVideo("no_decoder", "FFmpeg knows no decoder for the video stream")
    return stream
