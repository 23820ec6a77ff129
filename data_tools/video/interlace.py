"""Interlaced frames become progressive ones, as `ffmpeg -vf yadif=deint=interlaced` makes them.

The filter looks at a frame's neighbours and returns one frame for each, shown at the same time. Frames that are not
marked as interlaced pass through unchanged.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import av
from av.filter import Graph

Stamped = tuple[int, av.VideoFrame]  # (timestamp in units of the time base, frame)


def deinterlaced(frames: Iterable[Stamped]) -> Iterator[Stamped]:
    """Yield the frames, progressive. No frame is filtered before the first interlaced one comes."""
    graph: Graph | None = None
    stamps: deque[int | None] = deque()  # of the frames in the graph; None for one that has been yielded
    before: av.VideoFrame | None = None
    for stamp, frame in frames:
        if before is not None and _form(before) != _form(frame):
            yield from _rest(graph, stamps)
            graph = before = None
        if graph is None and frame.interlaced_frame:
            graph = _graph(frame)
            if before is not None:
                stamps.append(None)
                graph.vpush(before)
        if graph is None:
            yield stamp, frame
        else:
            stamps.append(stamp)
            graph.vpush(frame)
            yield from _ready(graph, stamps)
        before = frame
    yield from _rest(graph, stamps)


def _form(frame: av.VideoFrame) -> tuple:
    return frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range


def _graph(frame: av.VideoFrame) -> Graph:
    """The filter for frames like this one."""
    graph = Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        video_size=f"{frame.width}x{frame.height}",
        pix_fmt=frame.format.name,
        time_base="1/90000",
        colorspace=str(frame.colorspace),
        range=str(frame.color_range),
    )
    graph.link_nodes(source, graph.add("yadif", "deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _ready(graph: Graph, stamps: deque[int | None]) -> Iterator[Stamped]:
    """Yield what the graph gives now."""
    while stamps:
        try:
            frame = graph.vpull()
        except (BlockingIOError, EOFError):
            return
        if (stamp := stamps.popleft()) is not None:
            yield stamp, frame


def _rest(graph: Graph | None, stamps: deque[int | None]) -> Iterator[Stamped]:
    """Yield what the graph still holds."""
    if graph is not None:
        graph.vpush(None)
        yield from _ready(graph, stamps)
