"""Timestamps of frames as seconds, and the frames nearest to given times."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from statistics import median

import av

from data_tools.errors import BadVideo

# Two times that differ by less are equal, seconds: tolerance for rounding.
TIE = 1e-6


def timed(frames: Iterable[tuple[int, av.VideoFrame]], unit: Fraction) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frames with their times in seconds from the first, instead of timestamps in units of `unit` seconds."""
    origin: int | None = None
    for stamp, frame in frames:
        origin = stamp if origin is None else origin
        yield float((stamp - origin) * unit), frame


def nearest(
    frames: Iterable[tuple[float, av.VideoFrame]], times: Sequence[float]
) -> Iterator[tuple[list[int], av.VideoFrame]]:
    """Yield (indices of the `times` to which it is nearest, frame) for each frame that is nearest to one.

    Args:
        frames: (time, frame), ascending.
        times: ascending. Of two frames that are equally near, the earlier one is taken.
    """
    done = 0
    earlier: tuple[float, av.VideoFrame] | None = None
    for time, frame in frames:
        if earlier is not None:
            mine = done
            while done < len(times) and times[done] - earlier[0] <= time - times[done] + TIE:
                done += 1
            if done > mine:
                yield list(range(mine, done)), earlier[1]
            if done == len(times):
                return
        earlier = time, frame
    if earlier is not None and done < len(times):
        yield list(range(done, len(times))), earlier[1]


def duration_of(stamps: list[int], unit: Fraction) -> float:
    """Seconds from the first frame to the last, plus the median interval. Raises BadVideo if there is no interval."""
    if len(stamps) < 2:
        raise BadVideo("too_few_frames", "one frame has no motion")
    if stamps[-1] == stamps[0]:
        raise BadVideo("bad_timestamps", "all frames have the same time")
    steps = [later - earlier for earlier, later in zip(stamps, stamps[1:]) if later > earlier]
    return float((stamps[-1] - stamps[0]) * unit) + float(median(steps) * unit)
