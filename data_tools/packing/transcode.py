"""Re-encode a clip: cut, scale, constant frame rate, one key frame per second, no sound.

Smaller frames save most of the decoding time in training. Frames are chosen by timestamp and drawn as they are shown:
upright, with square pixels, progressive, in a standard dynamic range. So the new clip has no rotation, no sample aspect
ratio, no edit list and no open GOP. Its colours are those of the old one, and its tags say which they are.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, takewhile

import av
from av.filter import Graph

from data_tools.errors import BadVideo, DataError
from data_tools.packing.parts import part_frames
from data_tools.video.container import Source
from data_tools.video.decode import whole_frames
from data_tools.video.encode import ENCODERS, encode_video
from data_tools.video.times import TIE

TIMESCALE = Fraction(1, 90_000)  # time base of clips that keep their timestamps, seconds; fits all common rates
KEY_SECONDS = 1  # interval of key frames

BT709, BT601 = 1, 6
MATRICES = {BT709: "bt709", 4: "fcc", 5: "smpte170m", BT601: "smpte170m", 7: "smpte240m", 9: "bt2020"}  # as FFmpeg's
TimedFrames = Iterable[tuple[float, av.VideoFrame]]  # (time in seconds, frame), ascending


@dataclass(frozen=True)
class Encoding:
    """How to re-encode.

    Attributes:
        short_side: upper limit of the shorter side, pixels; None for no limit. Clips are never enlarged. Odd sizes
            lose a row or column.
        fps: constant frame rate, by repeating or dropping frames; None keeps all frames and their times.
        codec: a key of `ENCODERS`.
        crf: quality, 0 to 51; lower is better.
    """

    short_side: int | None = None
    fps: Fraction | None = None
    codec: str = "h264"
    crf: int = 20

    def check(self) -> None:
        """Raise DataError if a value is out of range."""
        if self.short_side is not None and self.short_side < 16:
            raise DataError(f"the short side must be at least 16 pixels, not {self.short_side}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise DataError(f"the frame rate must be above 0 and at most 1000, not {float(self.fps):g}")
        if self.codec not in ENCODERS:
            raise DataError(f"unknown codec '{self.codec}': choose one of {', '.join(ENCODERS)}")
        if not 0 <= self.crf <= 51:
            raise DataError(f"crf must be from 0 to 51, not {self.crf}")


def transcode(source: Source, encoding: Encoding, start: float = 0.0, end: float = math.inf) -> bytes:
    """Re-encode the frames in [start, end), seconds from the first shown frame.

    Returns:
        The bytes of an mp4.

    Raises:
        BadVideo: the video cannot be decoded, or shows nothing in this span.
    """
    shown: Iterator[tuple[float, av.VideoFrame]]
    if start == 0 and (end == math.inf or isinstance(source, bytes)):
        # Bytes in memory are a clip, not a long recording: all of it must be sound.
        shown = takewhile(lambda timed: timed[0] < end - TIE, whole_frames(source))
    else:
        shown = part_frames(source, start, end)
    first = next(shown, None)
    if first is None:
        raise BadVideo("empty_span", f"the video shows nothing from {start:g} s to {end:g} s")
    frames: TimedFrames = ((time - first[0], frame) for time, frame in chain([first], shown))
    if encoding.fps is not None:
        frames = at_rate(frames, encoding.fps)
    rate = encoding.fps or Fraction(24)  # without effect on a stream with timestamps of its own
    options = {"crf": str(encoding.crf), "g": str(math.ceil(rate * KEY_SECONDS)), "flags": "+cgop"}
    time_base = TIMESCALE if encoding.fps is None else None
    return encode_video(scaled(frames, encoding), encoding.codec, options, rate, time_base)


def at_rate(frames: TimedFrames, fps: Fraction) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield the frame nearest to each of the times 0, 1/fps, 2/fps … up to the last frame's time.

    If two frames are equally near, the earlier one is taken.
    """
    tick = 0
    earlier: tuple[float, av.VideoFrame] | None = None
    for time, frame in frames:
        while earlier is not None and tick / fps - earlier[0] <= time - tick / fps + TIE:
            yield float(tick / fps), earlier[1]
            tick += 1
        earlier = (time, frame)
    while earlier is not None and tick / fps <= earlier[0] + TIE:
        yield float(tick / fps), earlier[1]
        tick += 1


def scaled(frames: TimedFrames, encoding: Encoding) -> Iterator[av.VideoFrame]:
    """Yield the frames scaled, as yuv420p with the first one's colour matrix, with their times as pts in `TIMESCALE`.

    Frames with the same time follow one another by one unit: an encoder takes none twice.

    Args:
        frames: all of one size; colours and pixel formats may differ.
        encoding: gives the size.
    """
    graphs: dict[tuple, Graph] = {}
    matrix: int | None = None
    pts = -1
    for time, frame in frames:
        matrix = matrix or written_matrix(frame)
        form = frame.format.name, frame.colorspace, frame.color_range
        if form not in graphs:
            graphs[form] = _graph(frame, encoding.short_side, MATRICES[matrix])
        pts = max(pts + 1, round(time / TIMESCALE))
        frame.pts, frame.time_base = pts, TIMESCALE
        graphs[form].vpush(frame)
        written = graphs[form].vpull()
        written.colorspace = matrix  # the filter does not tell apart matrices of equal coefficients
        yield written


def written_matrix(frame: av.VideoFrame) -> int:
    """FFmpeg's number of the colour matrix for a clip that begins with this frame: its own, if it tells one.

    One that tells none is read as BT.601, and so it is written.
    """
    if frame.format.is_rgb:
        return BT709
    return frame.colorspace if frame.colorspace in MATRICES else BT601


def new_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Even (width, height) with a shorter side of at most `short_side`; never larger than the given size."""
    scale = min(Fraction(1), Fraction(short_side or min(width, height), min(width, height)))
    return max(2, round(width * scale) // 2 * 2), max(2, round(height * scale) // 2 * 2)


def _graph(frame: av.VideoFrame, short_side: int | None, matrix: str) -> Graph:
    """The libavfilter graph for frames with the form of `frame`."""
    width, height = new_size(frame.width, frame.height, short_side)
    quality = "flags=bicubic+accurate_rnd+full_chroma_int+bitexact"
    graph = Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        video_size=f"{frame.width}x{frame.height}",
        pix_fmt=frame.format.name,
        time_base=str(TIMESCALE),
        colorspace=str(frame.colorspace),
        range=str(frame.color_range),
    )
    scale = graph.add("scale", f"{width}:{height}:{quality}:out_color_matrix={matrix}:out_range=tv")
    graph.link_nodes(source, scale, graph.add("format", "yuv420p"), graph.add("buffersink"))
    graph.configure()
    return graph
