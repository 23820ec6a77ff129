"""How far the things of a video are from those of the true clip: in place and in size.

A caption leaves both open. So a video from a clip's own tokens can be nearer to the clip than one from its caption.
Things are found by the pixel judge's own eyes (:mod:`data_tools.shapes.seeing`).
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from data_tools.shapes.seeing import Blob, Clip

PARTS = 3  # of a clip: places are compared in its beginning, its middle and its end
AWAY = 0.5  # widths: counts for a thing that is missing, and at most for one that is elsewhere
OCTAVES = 2.0  # counts for the size of a thing that is missing, and at most for one of another size
LEVELS = 50  # a distance is stored as one of so many equal steps up to its most


class Likeness(NamedTuple):
    """The distance of a video from the true clip; 0 is the best.

    Attributes:
        place: Mean distance of a thing from its true place, in widths of the picture.
        size: Mean of |log2| of a thing's area by its true area.
    """

    place: float
    size: float


def likeness(video: np.ndarray, true: np.ndarray) -> Likeness:
    """Compares a video with the true clip, ``uint8`` RGB (F, H, W, 3) each. Further things of the video do not count.

    In each part, things are paired so that the sum of their distances is least.
    """
    seen, wanted = (Clip(frames) for frames in (video, true))
    found = [
        one
        for ours, theirs in zip(seen.windows(PARTS), wanted.windows(PARTS))
        for one in compared(ours, theirs, wanted.width)
    ]
    return Likeness(*np.mean(found, axis=0).tolist()) if found else Likeness(AWAY, OCTAVES)


def compared(ours: list[Blob], theirs: list[Blob], width: int) -> list[Likeness]:
    """Returns the likeness of each true thing to the thing that is paired with it."""
    result = [Likeness(AWAY, OCTAVES)] * len(theirs)
    if ours and theirs:
        away = np.array([[np.linalg.norm(one.centre - other.centre) / width for one in ours] for other in theirs])
        for row, column in zip(*linear_sum_assignment(away)):
            octaves = abs(np.log2(ours[column].area / theirs[row].area))
            result[row] = Likeness(min(AWAY, away[row, column]), min(OCTAVES, float(octaves)))
    return result


def level(value: float, most: float) -> int:
    """Returns the stored level, 0 ... ``LEVELS``, of a distance of at most ``most``."""
    return round(LEVELS * value / most)
