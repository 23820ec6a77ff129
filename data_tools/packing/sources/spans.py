"""The part of a video that a row of a table describes: its `start` and `end`, in seconds or as h:mm:ss."""

import math
from typing import Any

from data_tools.errors import BadVideo

# Columns of public datasets. Where each row has a file of its own, they tell from where in a recording it was cut.
OTHER_NAMES = frozenset(
    {"start_time", "end_time", "start_sec", "end_sec", "t_start", "t_end", "start_timestamp", "end_timestamp"}
)


def span_of(cells: dict[str, Any]) -> tuple[float, float] | None:
    """The part to cut out, (start, end) in seconds; None for the whole video. A missing end is infinite.

    Raises:
        BadVideo: the cells are not times, or start is not before end.
    """
    if "start" not in cells and "end" not in cells:
        return None
    start, end = _seconds(cells.get("start", 0)), _seconds(cells.get("end", math.inf))
    if not 0 <= start < end:
        raise BadVideo("bad_span", f"{start:g} s to {end:g} s is not a part of a video")
    return start, end


def cut_of(cells: dict[str, Any]) -> str:
    """A text that is the same for all spellings of a row's `start` and `end`."""
    try:
        return str(span_of(cells))
    except BadVideo:
        return f"{cells.get('start', '')} {cells.get('end', '')}"


def times_under_other_names(cells: dict[str, Any]) -> dict[str, Any]:
    """The cells that may be the times of a part, but are not read as such."""
    return {name: cell for name, cell in cells.items() if name.lower() in OTHER_NAMES}


def _seconds(cell: str | float) -> float:
    """Seconds from a number or from h:mm:ss. Raises BadVideo."""
    try:
        return sum(float(part) * 60**place for place, part in enumerate(reversed(str(cell).split(":"))))
    except ValueError:
        raise BadVideo("bad_span", f"{str(cell)[:40]!r} is not a time: write seconds or h:mm:ss") from None
