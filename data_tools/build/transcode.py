"""A clip encoded anew: a part of it, smaller, at a steady rate, with a key frame each second. Sound is left out.

Smaller pictures are what saves most of the decoder's time in training. Frames are chosen by timestamp, as when they
are read, and turned for display, so that the new clip has no rotation, no edit list and no open GOP.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, takewhile

import av
from av.filter import Graph

from data_tools.build.parts import part_frames
from data_tools.encode import ENCODERS, encode_video
from data_tools.errors import BadVideo, DataError
from data_tools.video import TIE, Source, quarter_turns, whole_frames

TIMESCALE = Fraction(1, 90_000)  # of clips that keep their own times: fine enough for any usual rate
KEY_SECONDS = 1
TURNS = {0: [], 1: [("transpose", "cclock")], 2: [("hflip", ""), ("vflip", "")], 3: [("transpose", "clock")]}

TimedFrames = Iterable[tuple[float, av.VideoFrame]]


@dataclass(frozen=True)
class Encoding:
    """How to encode.

    short_side: pixels at most, None for the clip's own; nothing is made larger, and odd sizes lose a row or column.
    fps: a steady rate, by repeating or leaving out frames; None keeps every frame at its time.
    crf: the encoder's quality, lower is better.
    """

    short_side: int | None = None
    fps: Fraction | None = None
    codec: str = "h264"
    crf: int = 20

    def check(self) -> None:
        """Raises DataError for values that cannot be meant."""
        if self.short_side is not None and self.short_side < 16:
            raise DataError(f"the short side must be at least 16 pixels, not {self.short_side}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise DataError(f"the frame rate must be above 0 and at most 1000, not {float(self.fps):g}")
        if self.codec not in ENCODERS:
            raise DataError(f"unknown codec '{self.codec}': choose one of {', '.join(ENCODERS)}")
        if not 0 <= self.crf <= 51:
            raise DataError(f"crf must be from 0 to 51, not {self.crf}")


def transcode(source: Source, encoding: Encoding, start: float = 0.0, end: float = math.inf) -> bytes:
    """An mp4 of what `source` shows from `start` to before `end`, seconds from its first frame. Raises BadVideo."""
    if start == 0 and (end == math.inf or isinstance(source, bytes)):
        # What is held in memory is a clip, not a long recording: it must be sound as a whole.
        frames = takewhile(lambda timed: timed[0] < end - TIE, whole_frames(source))
    else:
        frames = part_frames(source, start, end)
    first = next(iter(frames := iter(frames)), None)
    if first is None:
        raise BadVideo("empty_span", f"the video shows nothing from {start:g} s to {end:g} s")
    frames = ((time - first[0], frame) for time, frame in chain([first], frames))
    steady = encoding.fps is not None
    if steady:
        frames = at_rate(frames, encoding.fps)
    rate = encoding.fps or Fraction(24)  # of no account to a stream whose frames have times of their own
    options = {"crf": str(encoding.crf), "g": str(math.ceil(rate * KEY_SECONDS)), "flags": "+cgop"}
    return encode_video(scaled(frames, encoding), encoding.codec, options, rate, None if steady else TIMESCALE)


def at_rate(frames: TimedFrames, fps: Fraction) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frame nearest to each of 0, 1/fps, 2/fps … until the last frame's time; the earlier one of two as near."""
    tick, earlier = 0, None
    for time, frame in frames:
        while earlier is not None and tick / fps - earlier[0] <= time - tick / fps + TIE:
            yield float(tick / fps), earlier[1]
            tick += 1
        earlier = (time, frame)
    while earlier is not None and tick / fps <= earlier[0] + TIE:
        yield float(tick / fps), earlier[1]
        tick += 1


def scaled(frames: TimedFrames, encoding: Encoding) -> Iterator[av.VideoFrame]:
    """The frames turned for display, at their new size, yuv420p, with their times as pts."""
    graph, shape = None, None
    for time, frame in frames:
        if graph is None:
            shape = (frame.width, frame.height)
            graph = _graph(frame, encoding.short_side)
        if (frame.width, frame.height) != shape:
            raise BadVideo("frame_sizes_differ", f"from {shape[0]} x {shape[1]} to {frame.width} x {frame.height}")
        frame.pts, frame.time_base = round(time / TIMESCALE), TIMESCALE
        graph.push(frame)
        yield graph.pull()


def new_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height, even, with the short side at most `short_side` and nothing enlarged."""
    scale = min(1, Fraction(short_side or min(width, height), min(width, height)))
    return tuple(max(2, round(side * scale) // 2 * 2) for side in (width, height))


def _graph(frame: av.VideoFrame, short_side: int | None) -> Graph:
    """libavfilter's chain for frames like this one."""
    turns = quarter_turns(frame)
    shown = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
    width, height = new_size(*shown, short_side)
    scale = f"{width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int+bitexact"
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=TIMESCALE)
    steps = [*TURNS[turns], ("scale", scale), ("format", "yuv420p")]
    graph.link_nodes(source, *(graph.add(name, options) for name, options in steps), graph.add("buffersink"))
    graph.configure()
    return graph
