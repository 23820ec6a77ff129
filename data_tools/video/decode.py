"""Validate one video, and decode the frames that it shows at given times.

`validate` decodes every frame, strictly, when shards are built. `decode` trusts the clip and decodes only the wanted
frames. It chooses them by timestamp, because the frame rate may vary.

Times are seconds from the first *shown* frame. Some packets are not shown: those before the first key frame (a
broadcast cut in mid-GOP) and those before the start of an edit list (a file cut without re-encoding keeps them as
references).
"""

import io
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import cast

import av
import torch
from av.container import InputContainer

from data_tools.errors import BadVideo, DataError

Source = bytes | str | Path

BACKENDS = ("pyav", "decord")

# No playlist formats: FFmpeg would open any local file or address that a playlist names.
CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif"

# Two times that differ by less are equal, seconds: tolerance for rounding.
TIE = 1e-6

# A stream may end this much before its DURATION tag, seconds: rounding, or a last frame of unknown duration.
SLACK = 0.25


@dataclass(frozen=True)
class VideoFacts:
    """Facts of a video, measured by a full decode.

    Attributes:
        width: pixels as displayed, after rotation; the sample aspect ratio is ignored.
        height: as `width`.
        fps: frames / duration.
        frames: number of shown frames.
        duration: seconds from the first frame to the last, plus the median interval between frames.
        codec: FFmpeg's name, such as "h264".
        rotation: degrees counter-clockwise (0, 90, 180 or 270) by which coded frames are rotated for display.
        pix_fmt: FFmpeg's name of the pixel format, such as "yuv420p".
    """

    width: int
    height: int
    fps: float
    frames: int
    duration: float
    codec: str
    rotation: int
    pix_fmt: str

    def to_dict(self) -> dict:
        """The facts as plain JSON values."""
        return asdict(self)


def validate(source: Source) -> VideoFacts:
    """Decode every frame strictly.

    A video cut in mid-GOP is accepted without the frames before its first key frame, which cannot be decoded. All
    later frames are exact.

    Raises:
        BadVideo: anything is wrong with the file.
    """
    with opened(source) as stream:
        frames = _strictly(stream)
        stamp, first = next(frames)  # `_strictly` raises BadVideo if there is no frame
        stamps = [stamp, *(stamp for stamp, _ in frames)]
        seconds = _seconds(stamps, time_base(stream))
        duration = seconds[-1] + median(b - a for a, b in zip(seconds, seconds[1:]))
        turns = quarter_turns(first)
        width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
        return VideoFacts(
            width=width,
            height=height,
            fps=len(stamps) / duration,
            frames=len(stamps),
            duration=duration,
            codec=stream.codec_context.codec.canonical_name,
            rotation=90 * turns,
            pix_fmt=first.format.name,
        )


def measured_duration(source: Source) -> float:
    """The duration as in `VideoFacts`, in seconds, from the packets' timestamps; nothing is decoded.

    Raises:
        BadVideo: the packets do not tell the duration.
    """
    with opened(source) as stream:
        packets = list(container_of(stream).demux(stream))
        seconds = _seconds(_shown(_decodable(packets)), time_base(stream))
    if len(seconds) < 2:
        raise BadVideo("too_few_frames", "one frame has no motion")
    return seconds[-1] + median(b - a for a, b in zip(seconds, seconds[1:]))


def whole_frames(source: Source) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield (time in seconds, frame) for every shown frame, as coded.

    Raises:
        BadVideo: in the cases of `validate`, at the latest after the last frame.
    """
    with opened(source) as stream:
        origin = None
        for stamp, frame in _strictly(stream):
            origin = stamp if origin is None else origin
            yield float((stamp - origin) * time_base(stream)), frame


def decode(source: Source, times: Sequence[float], backend: str = "pyav") -> Iterator[tuple[list[int], torch.Tensor]]:
    """Decode the shown frames nearest to given times, each once, in order.

    Args:
        source: the video.
        times: seconds, ascending, at least one. A time half-way between two frames means the earlier one; a time past
            the end means the last frame.
        backend: one of `BACKENDS`.

    Yields:
        (indices into `times` for this frame, uint8 RGB (H, W, 3) as displayed).

    Raises:
        DataError: the backend is unknown or not installed.
        BadVideo: while iterating, if the video cannot be decoded.
    """
    if backend not in BACKENDS:
        raise DataError(f"unknown decoder '{backend}': choose one of {', '.join(BACKENDS)}")
    return (_decode_pyav if backend == "pyav" else _decode_decord)(source, times)


def _decode_pyav(source: Source, times: Sequence[float]) -> Iterator[tuple[list[int], torch.Tensor]]:
    with opened(source) as stream:
        packets = _decodable(list(container_of(stream).demux(stream)))
        wanted = _wanted(_shown(packets), times, time_base(stream))
        for packet in packets[_entry(packets, min(wanted)) :]:
            # Skip unwanted non-reference frames. Set per packet, so that wanted non-reference frames are decoded.
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in wanted else "NONREF"
            for frame in packet.decode():
                if frame.pts is not None and (indices := wanted.pop(frame.pts, None)):
                    yield indices, _rgb(frame)
            if not wanted:
                return
        raise BadVideo("missing_frames", f"{len(wanted)} of the wanted frames do not decode")


def _decode_decord(source: Source, times: Sequence[float]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """As `_decode_pyav`. decord can crash on a damaged file: use it for validated clips only.

    decord rotates frames for display by itself.
    """
    try:
        import decord
    except ImportError as error:
        raise DataError("decoder 'decord' is not installed: pip install decord, or choose 'pyav'") from error
    with opened(source) as stream:
        packets = [packet for packet in container_of(stream).demux(stream) if packet.size]
        shown = _shown(_decodable(packets))
        if not _decord_is_right(stream, packets, shown):
            raise BadVideo("decord_unsupported", "decord would return wrong frames for this file: choose 'pyav'")
        wanted = _wanted(shown, times, time_base(stream))
    try:
        # A new reader per call: a reader hangs if it is used after a fork.
        reader = decord.VideoReader(io.BytesIO(source) if isinstance(source, bytes) else str(source), num_threads=1)
        if len(reader) != len(shown):
            raise BadVideo("decord_unsupported", "decord reads another stream of this file: choose 'pyav'")
        for number, stamp in enumerate(shown):
            if stamp in wanted:
                yield wanted[stamp], torch.from_numpy(reader[number].asnumpy())
    except decord.DECORDError as error:
        raise BadVideo("corrupt", f"decord: {str(error).splitlines()[0]}") from error


def _decord_is_right(stream: av.VideoStream, packets: list[av.Packet], shown: list[int]) -> bool:
    """Whether decord 0.6 returns the right frames of this file.

    It silently returns wrong frames if the container has no index, if some packets are not shown, and if frames are
    shown before the key frame that precedes them in the file (an open GOP).
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
    return True


@contextmanager
def opened(source: Source) -> Iterator[av.VideoStream]:
    """Open a file and give its video stream.

    Raises:
        BadVideo: the file cannot be opened, or FFmpeg raises an error in the body of the `with` statement.
    """
    head = _head(source)
    if not head:
        raise BadVideo("empty_file", "the file holds no bytes")
    try:
        container = av.open(
            io.BytesIO(source) if isinstance(source, bytes) else str(source),
            "r",
            options={"format_whitelist": CONTAINERS},
            metadata_errors="ignore",
        )
    except av.FFmpegError as error:
        if head[4:8] == b"ftyp":
            raise BadVideo("truncated", "an MP4 that does not open: its index (moov) is lost or damaged") from error
        raise BadVideo("not_a_video", "no known video container") from error
    with container:
        stream = _main_stream(container)
        # Threaded decoding would delay frames, and the callers' processes already use all cores.
        stream.codec_context.thread_count = 1
        try:
            yield stream
        except av.FFmpegError as error:
            raise BadVideo("corrupt", error.strerror or str(error)) from error


def container_of(stream: av.VideoStream) -> InputContainer:
    """The open file of a stream that `opened` gave."""
    return cast(InputContainer, stream.container)


def time_base(stream: av.VideoStream) -> Fraction:
    """The unit of the stream's timestamps, seconds.

    Raises:
        BadVideo: the stream has none.
    """
    if stream.time_base is None:
        raise BadVideo("no_timestamps", "the stream has no time base: re-mux the video, for example to MP4")
    return stream.time_base


def _head(source: Source) -> bytes:
    """The first 8 bytes."""
    if isinstance(source, bytes):
        return source[:8]
    try:
        with open(source, "rb") as file:
            return file.read(8)
    except OSError as error:
        raise BadVideo("unreadable", f"{source}: {error.strerror}") from error


def _main_stream(container: InputContainer) -> av.VideoStream:
    """The first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise BadVideo("no_decoder", "FFmpeg knows no decoder for the video stream")
            return stream
    raise BadVideo("no_video_stream", "no stream of the file is a video")


def _decodable(packets: list[av.Packet]) -> list[av.Packet]:
    """The packets from the first key frame on, in decoding order, without those shown before it."""
    first = next((n for n, packet in enumerate(packets) if packet.is_keyframe), None)
    if first is None:
        raise BadVideo("no_keyframe", "no frame can be decoded: the stream has no key frame")
    start = packets[first].pts
    if start is None:
        raise BadVideo("no_timestamps", "frames carry no timestamps: re-mux the video, for example to MP4")
    return [packet for packet in packets[first:] if packet.pts is None or packet.pts >= start]


def _shown(decodable: list[av.Packet]) -> list[int]:
    """Timestamps of the shown frames, ascending, in units of the time base."""
    shown = [packet.pts for packet in decodable if packet.pts is not None and not packet.is_discard]
    if not shown:
        raise BadVideo("no_frames", "the edit list shows none of the frames")
    return sorted(shown)


def _strictly(stream: av.VideoStream) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (timestamp, frame) for all shown frames of the stream.

    Raises:
        BadVideo: anything is missing or damaged.
    """
    stream.codec_context.options = {"err_detect": "explode"}
    packets = list(container_of(stream).demux(stream))
    _check_complete(stream, packets)
    packets = _decodable(packets)
    stamps: list[int] = []
    for packet in packets:
        for frame in packet.decode():
            stamps.append(checked_stamp(frame, f"frame {len(stamps)}"))
            yield stamps[-1], frame
    _check_shown(stamps, _shown(packets))


def checked_stamp(frame: av.VideoFrame, name: str) -> int:
    """The timestamp of a sound frame, in units of the time base.

    Raises:
        BadVideo: the frame is damaged or has no timestamp; `name` names it in the message.
    """
    if frame.is_corrupt:
        raise BadVideo("corrupt", f"{name} is damaged")
    if frame.pts is None:
        raise BadVideo("no_timestamps", "frames carry no timestamps: re-mux the video, for example to MP4")
    return frame.pts


def _check_complete(stream: av.VideoStream, packets: list[av.Packet]) -> None:
    """Raise BadVideo if the data ends inside a packet, or before the end that the index or the DURATION tag gives.

    The header's frame count is no evidence: it includes frames that an edit list cuts away. Nor is the container's
    duration, which includes the sound and can be absurd. Matroska's DURATION tag belongs to the video stream alone.
    """
    if any(packet.is_corrupt for packet in packets):
        raise BadVideo("truncated", "the data ends, or has a hole, inside a frame")
    # Matroska's index holds presentation times, other indices hold decoding times.
    matroska = stream.container.format.name.startswith("matroska")
    stamps = [packet.pts if matroska else packet.dts for packet in packets]
    last = max((stamp for stamp in stamps if stamp is not None), default=0)
    if stream.index_entries and stream.index_entries[-1].timestamp > last:
        raise BadVideo("truncated", "the index lists frames that come after the end of the data")
    if tag := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(float, tag.groups())
        promised = 3600 * hours + 60 * minutes + seconds
        ends = (packet.pts + (packet.duration or 0) for packet in packets if packet.pts is not None)
        found = float(max(ends, default=0) * time_base(stream))
        if promised > found + SLACK:
            raise BadVideo("truncated", f"the header promises {promised:.1f} s, the data ends at {found:.1f} s")


def _check_shown(stamps: list[int], shown: list[int]) -> None:
    """Raise BadVideo unless the decoded frames are the shown packets, each once, in order, and at least two."""
    if not stamps:
        raise BadVideo("no_frames", "no frame decodes")
    if len(stamps) < len(shown):
        raise BadVideo("missing_frames", f"{len(shown) - len(stamps)} of {len(shown)} frames do not decode")
    if stamps != shown or len(set(shown)) < len(shown):
        raise BadVideo("bad_timestamps", "timestamps contradict the order of frames: re-mux, for example to MP4")
    if len(stamps) < 2:
        raise BadVideo("too_few_frames", "one frame has no motion")


def _wanted(shown: list[int], times: Sequence[float], unit: Fraction) -> dict[int, list[int]]:
    """Timestamp of each frame to decode, ascending -> indices of the `times` (seconds) nearest to it."""
    seconds = _seconds(shown, unit)
    wanted: dict[int, list[int]] = {}
    for index, time in enumerate(times):
        later = min(bisect_left(seconds, time), len(seconds) - 1)
        earlier = max(later - 1, 0)
        nearest = earlier if time - seconds[earlier] <= seconds[later] - time + TIE else later
        wanted.setdefault(shown[nearest], []).append(index)
    return wanted


def _entry(decodable: list[av.Packet], stamp: int) -> int:
    """Index of the packet at which decoding must start for the frame at `stamp`: the last key frame shown no later."""
    return max(
        index
        for index, packet in enumerate(decodable)
        if packet.is_keyframe and packet.pts is not None and packet.pts <= stamp
    )


def _seconds(stamps: list[int], unit: Fraction) -> list[float]:
    """Timestamps as seconds from the first."""
    return [float((stamp - stamps[0]) * unit) for stamp in stamps]


def quarter_turns(frame: av.VideoFrame) -> int:
    """Number of counter-clockwise quarter turns, 0 to 3, by which the coded frame is rotated for display."""
    return round(frame.rotation / 90) % 4


def _rgb(frame: av.VideoFrame) -> torch.Tensor:
    """The frame as displayed, uint8 RGB (H, W, 3), at its own size.

    At this size swscale applies the colour matrix and range correctly; the views are scaled later.
    """
    picture = torch.from_numpy(frame.to_ndarray(format="rgb24", threads=1))
    turns = quarter_turns(frame)
    return picture.rot90(turns).contiguous() if turns else picture  # `rot90` copies even for 0 turns
