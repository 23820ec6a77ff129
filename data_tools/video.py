"""Read one video: is it sound, and which picture is shown at a given time?

`validate` decodes everything once, strictly, when shards are built. `decode` then trusts the clip and yields only the
wanted pictures, chosen by timestamp: a frame's number says nothing about its time in a video of variable frame rate.

Times are seconds from the first *shown* frame. A stream holds packets that show nothing: those before the first key
frame (a broadcast cut in mid-GOP), and those before the start of an edit list (a file cut without re-encoding, which
keeps them because later frames refer to them).
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

import av
import torch

from data_tools.errors import BadVideo, DataError

Source = bytes | str | Path

BACKENDS = ("pyav", "decord")

# Anything else could be a playlist, and FFmpeg would open whatever local file or address a playlist names.
CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif"

# Seconds. Two frames that are equally near to a time, but for rounding, count as equally near.
TIE = 1e-6

# Seconds by which a stream may end before its DURATION tag says: rounding, or a last frame of unknown duration.
SLACK = 0.25


@dataclass(frozen=True)
class VideoFacts:
    """What a full decode has seen.

    width, height: pixels as displayed, after rotation; the sample aspect ratio is left out.
    fps: frames / duration.
    frames: decoded frames that are shown.
    duration: seconds from the first frame to the last, plus the median interval between frames.
    rotation: degrees counter-clockwise, 0/90/180/270, by which coded frames are turned for display.
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
        return asdict(self)


def validate(source: Source) -> VideoFacts:
    """Decode every frame strictly. Raises BadVideo, whatever is wrong with the file.

    A video cut in mid-GOP is accepted without the frames before its first key frame: those cannot be decoded, and all
    that follow are exactly right.
    """
    with opened(source) as stream:
        stamps, first = [], None
        for frame in _strictly(stream):
            first = first or frame
            stamps.append(frame.pts)
        seconds = _seconds(stamps, stream.time_base)
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
    """Seconds from the first shown frame to the last, plus the median interval, by the packets: nothing is decoded.

    Raises BadVideo where that cannot be known.
    """
    with opened(source) as stream:
        seconds = _seconds(_shown(_decodable(list(stream.container.demux(stream)))), stream.time_base)
    if len(seconds) < 2:
        raise BadVideo("too_few_frames", "one frame has no motion")
    return seconds[-1] + median(b - a for a, b in zip(seconds, seconds[1:]))


def whole_frames(source: Source) -> Iterator[tuple[float, av.VideoFrame]]:
    """Every shown frame, as coded, with its time. Raises BadVideo, at the end at latest, where `validate` would."""
    with opened(source) as stream:
        origin = None
        for frame in _strictly(stream):
            origin = frame.pts if origin is None else origin
            yield float((frame.pts - origin) * stream.time_base), frame


def decode(source: Source, times: Sequence[float], backend: str = "pyav") -> Iterator[tuple[list[int], torch.Tensor]]:
    """The frames shown nearest to `times` (seconds, ascending, at least one), each once, in order, one at a time.

    Yields (indices into `times` that look at this frame, uint8 RGB (H, W, 3), turned for display). A time half-way
    between two frames looks at the earlier one; a time past the end at the last.

    Raises DataError for an unknown or missing backend, BadVideo (while iterating) for a video it cannot decode.
    """
    if backend not in BACKENDS:
        raise DataError(f"unknown decoder '{backend}': choose one of {', '.join(BACKENDS)}")
    return (_decode_pyav if backend == "pyav" else _decode_decord)(source, times)


def _decode_pyav(source: Source, times: Sequence[float]) -> Iterator[tuple[list[int], torch.Tensor]]:
    with opened(source) as stream:
        packets = _decodable(list(stream.container.demux(stream)))
        wanted = _wanted(_shown(packets), times, stream.time_base)
        for packet in packets[_entry(packets, min(wanted)) :]:
            # Decided for each packet, so that a wanted frame is decoded even where no other frame refers to it.
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in wanted else "NONREF"
            for frame in packet.decode():
                if indices := wanted.pop(frame.pts, None):
                    yield indices, _rgb(frame)
            if not wanted:
                return
        raise BadVideo("missing_frames", f"{len(wanted)} of the wanted frames do not decode")


def _decode_decord(source: Source, times: Sequence[float]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """decord turns frames for display by itself. It can crash on a damaged file: give it validated clips only."""
    try:
        import decord
    except ImportError as error:
        raise DataError("decoder 'decord' is not installed: pip install decord, or choose 'pyav'") from error
    with opened(source) as stream:
        packets = [packet for packet in stream.container.demux(stream) if packet.size]
        shown = _shown(_decodable(packets))
        if not _decord_is_right(stream, packets, shown):
            raise BadVideo("decord_unsupported", "decord would return wrong frames for this file: choose 'pyav'")
        wanted = _wanted(shown, times, stream.time_base)
    try:
        # A reader for each call: one that lives on through a fork hangs.
        reader = decord.VideoReader(io.BytesIO(source) if isinstance(source, bytes) else str(source), num_threads=1)
        if len(reader) != len(shown):
            raise BadVideo("decord_unsupported", "decord reads another stream of this file: choose 'pyav'")
        for number, stamp in enumerate(shown):
            if stamp in wanted:
                yield wanted[stamp], torch.from_numpy(reader[number].asnumpy())
    except decord.DECORDError as error:
        raise BadVideo("corrupt", f"decord: {str(error).splitlines()[0]}") from error


def _decord_is_right(stream: av.VideoStream, packets: list[av.Packet], shown: list[int]) -> bool:
    """Whether decord 0.6 finds its way in this file.

    It silently returns wrong frames from containers without an index, where packets show nothing, and where frames
    are shown before the key frame they follow in the file (an open GOP).
    """
    if not stream.container.format.name.startswith(("mov", "matroska")) or len(shown) < len(packets):
        return False
    key = shown[0]
    for packet in packets:
        key = packet.pts if packet.is_keyframe else key
        if packet.pts < key:
            return False
    return True


@contextmanager
def opened(source: Source) -> Iterator[av.VideoStream]:
    """The video stream of an open file; whatever FFmpeg finds wrong with it, in here or in the body, is BadVideo."""
    head = _head(source)
    if not head:
        raise BadVideo("empty_file", "the file holds no bytes")
    try:
        container = av.open(
            io.BytesIO(source) if isinstance(source, bytes) else str(source),
            options={"format_whitelist": CONTAINERS},
            metadata_errors="ignore",
        )
    except av.FFmpegError as error:
        if head[4:8] == b"ftyp":
            raise BadVideo("truncated", "an MP4 that does not open: its index (moov) is lost or damaged") from error
        raise BadVideo("not_a_video", "no known video container") from error
    with container:
        stream = _main_stream(container)
        # Decoding in threads would return frames late, and the workers around it already use every core.
        stream.codec_context.thread_count = 1
        try:
            yield stream
        except av.FFmpegError as error:
            raise BadVideo("corrupt", error.strerror) from error


def _head(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source[:8]
    try:
        with open(source, "rb") as file:
            return file.read(8)
    except OSError as error:
        raise BadVideo("unreadable", f"{source}: {error.strerror}") from error


def _main_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise BadVideo("no_decoder", "FFmpeg knows no decoder for the video stream")
            return stream
    raise BadVideo("no_video_stream", "no stream of the file is a video")


def _decodable(packets: list[av.Packet]) -> list[av.Packet]:
    """The packets without those that need a frame from before the first key frame, in the order of decoding."""
    first = next((n for n, packet in enumerate(packets) if packet.is_keyframe), None)
    if first is None:
        raise BadVideo("no_keyframe", "no frame can be decoded: the stream has no key frame")
    start = packets[first].pts
    if start is None:
        raise BadVideo("no_timestamps", "frames carry no timestamps: re-mux the video, for example to MP4")
    return [packet for packet in packets[first:] if packet.pts is None or packet.pts >= start]


def _shown(decodable: list[av.Packet]) -> list[int]:
    """Timestamps, ascending, of the frames that a player shows; the unit is the stream's time base."""
    shown = [packet.pts for packet in decodable if packet.pts is not None and not packet.is_discard]
    if not shown:
        raise BadVideo("no_frames", "the edit list shows none of the frames")
    return sorted(shown)


def _strictly(stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Decode the shown frames of the whole stream; BadVideo where anything is missing or damaged."""
    stream.codec_context.options = {"err_detect": "explode"}
    packets = list(stream.container.demux(stream))
    _check_complete(stream, packets)
    packets, stamps = _decodable(packets), []
    for packet in packets:
        for frame in packet.decode():
            check_frame(frame, f"frame {len(stamps)}")
            stamps.append(frame.pts)
            yield frame
    _check_shown(stamps, _shown(packets))


def check_frame(frame: av.VideoFrame, name: str) -> None:
    if frame.is_corrupt:
        raise BadVideo("corrupt", f"{name} is damaged")
    if frame.pts is None:
        raise BadVideo("no_timestamps", "frames carry no timestamps: re-mux the video, for example to MP4")


def _check_complete(stream: av.VideoStream, packets: list[av.Packet]) -> None:
    """Raise BadVideo if the data ends inside a packet, or before the index or the stream's length says that it does.

    The header's frame count will not do: it includes what an edit list has cut away. Nor will its duration, which can
    be absurd and counts the sound too. Matroska's DURATION tag is the stream's own.
    """
    if any(packet.is_corrupt for packet in packets):
        raise BadVideo("truncated", "the data ends, or has a hole, inside a frame")
    # Matroska's index goes by the time of display, the others by that of decoding.
    matroska = stream.container.format.name.startswith("matroska")
    stamps = [packet.pts if matroska else packet.dts for packet in packets]
    last = max((stamp for stamp in stamps if stamp is not None), default=0)
    if stream.index_entries and stream.index_entries[-1].timestamp > last:
        raise BadVideo("truncated", "the index lists frames that come after the end of the data")
    if tag := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(float, tag.groups())
        promised = 3600 * hours + 60 * minutes + seconds
        ends = (packet.pts + (packet.duration or 0) for packet in packets if packet.pts is not None)
        found = float(max(ends, default=0) * stream.time_base)
        if promised > found + SLACK:
            raise BadVideo("truncated", f"the header promises {promised:.1f} s, the data ends at {found:.1f} s")


def _check_shown(stamps: list[int | None], shown: list[int]) -> None:
    """Raise BadVideo unless the decoded frames are the shown packets, each once and in order, and at least two."""
    if not stamps:
        raise BadVideo("no_frames", "no frame decodes")
    if len(stamps) < len(shown):
        raise BadVideo("missing_frames", f"{len(shown) - len(stamps)} of {len(shown)} frames do not decode")
    if stamps != shown or len(set(shown)) < len(shown):
        raise BadVideo("bad_timestamps", "timestamps do not give the order of frames: re-mux the video, say to MP4")
    if len(stamps) < 2:
        raise BadVideo("too_few_frames", "one frame has no motion")


def _wanted(shown: list[int], times: Sequence[float], time_base: Fraction) -> dict[int, list[int]]:
    """The timestamp of each frame to decode, ascending, with the indices of the `times` it is nearest to."""
    seconds = _seconds(shown, time_base)
    wanted: dict[int, list[int]] = {}
    for index, time in enumerate(times):
        later = min(bisect_left(seconds, time), len(seconds) - 1)
        earlier = max(later - 1, 0)
        nearest = earlier if time - seconds[earlier] <= seconds[later] - time + TIE else later
        wanted.setdefault(shown[nearest], []).append(index)
    return wanted


def _entry(decodable: list[av.Packet], stamp: int) -> int:
    """Where decoding has to begin for the frame at `stamp`: the last key frame shown no later."""
    keys = (n for n, packet in enumerate(decodable) if packet.is_keyframe and packet.pts is not None)
    return max(n for n in keys if decodable[n].pts <= stamp)


def _seconds(stamps: list[int], time_base: Fraction) -> list[float]:
    return [float((stamp - stamps[0]) * time_base) for stamp in stamps]


def quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise, 0 to 3, by which the coded frame is turned for display."""
    return round(frame.rotation / 90) % 4


def _rgb(frame: av.VideoFrame) -> torch.Tensor:
    """uint8 (H, W, 3). At the source's own size swscale honours colour matrix and range; scaling comes later."""
    picture = torch.from_numpy(frame.to_ndarray(format="rgb24", threads=1))
    turns = quarter_turns(frame)
    return picture.rot90(turns).contiguous() if turns else picture  # `rot90` copies even what it does not turn
