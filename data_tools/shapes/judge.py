"""Answer a question about a shapes clip from its pixels alone, or abstain.

Lengths are fractions of the picture's width. Each threshold lies midway between the answers that it separates; none
is a constant of the generator.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from data_tools.items import Item
from data_tools.shapes.seeing import Blob, Clip, unlikeness
from data_tools.shapes.vocabulary import CATEGORIES, COLOURS, colours_in, shape_in

MOVED = 0.05  # least displacement that counts as motion
RESTS = 0.03  # largest standard deviation of a still shape's position
STEADY = 0.8  # least R² of a straight line for motion to count as steady along an axis
LARGER = 1.45  # ratio of areas
GROWN, SHRUNK = 1.35, 0.74  # ratios of areas
RECOLOURED = 0.956  # cosine of 17°; relative to a dark background, named colours are at least 33° apart
SAME_PLACE = 0.12  # largest distance between two sightings of a shape that does not move
# (third, fourth) moments of the ideal shapes: E[z³] of an equilateral triangle is R³/10, E[z⁴] of a square side⁴/60.
MOMENTS = {"circle": (0.0, 0.0), "square": (0.0, 1 / 60), "triangle": (0.1 * (4 / 27**0.5) ** 1.5, 0.0)}
WAYS = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")  # clockwise by 45°


def answer(frames: np.ndarray, item: Item) -> str | None:
    """Answer an item from a clip.

    Args:
        frames: uint8 RGB (F, H, W, 3).
        item: a question of one of `CATEGORIES`.

    Returns:
        One of the item's options, or None if the pixels do not decide.
    """
    label = _JUDGES[item.category](Clip(frames), item)
    if label is None:
        return None
    found = CATEGORIES[item.category].answers.get(label)
    return found if found in item.options else None


def _counting(clip: Clip, item: Item) -> str | None:
    counts = Counter(len(blobs) for blobs in clip.windows(3))
    return str(counts.most_common(1)[0][0])


def _direction(clip: Clip, item: Item) -> str | None:
    track = clip.track(colours_in(item.question)[0])
    if track is None:
        return None
    t = np.linspace(-0.5, 0.5, len(track))
    displacement = (t @ track) / (t @ t)  # least squares, from the first frame to the last
    residual = track - track.mean(axis=0) - np.outer(t, displacement)
    length = np.linalg.norm(displacement)
    if length < MOVED * clip.width or np.sqrt((residual**2).sum(axis=1).mean()) > 0.3 * length:
        return None
    return WAYS[round(np.arctan2(displacement[1], displacement[0]) / (np.pi / 4)) % 8]


def _relative_position(clip: Clip, item: Item) -> str | None:
    pair = _named_pair(clip, item)
    if pair is None:
        return None
    x, y = pair[0].centre - pair[1].centre
    if abs(x) > abs(y):
        return "left" if x < 0 else "right"
    return "above" if y < 0 else "below"


def _relative_size(clip: Clip, item: Item) -> str | None:
    pair = _named_pair(clip, item)
    if pair is None:
        return None
    ratio = pair[0].area / pair[1].area
    return "larger" if ratio > LARGER else "smaller" if ratio < 1 / LARGER else "same"


def _colour(clip: Clip, item: Item) -> str | None:
    [blobs] = clip.windows(1)
    if len(blobs) != 2:
        return None
    wanted = shape_in(item.question)
    one = min(blobs, key=lambda blob: _unlike_shape(blob, wanted))
    return min(COLOURS, key=lambda colour: unlikeness(one.colour, colour))


def _state(clip: Clip, item: Item) -> str | None:
    parts = clip.windows(4)
    first, last = parts[0], parts[-1]
    if not first and not last:
        return None
    if len(first) != len(last):
        return "appears" if len(first) < len(last) else "disappears"
    changes = set()
    for before in first:
        after = min(last, key=lambda blob: np.linalg.norm(blob.centre - before.centre))
        if np.linalg.norm(after.centre - before.centre) > SAME_PLACE * clip.width:
            return None
        ratio = after.area / before.area
        if _cosine(before.contrast, after.contrast) < RECOLOURED:
            changes.add("changes")
        elif not SHRUNK < ratio < GROWN:
            changes.add("grows" if ratio > 1 else "shrinks")
    return "stays" if not changes else changes.pop() if len(changes) == 1 else None


def _motion(clip: Clip, item: Item) -> str | None:
    track = clip.track(colours_in(item.question)[0])
    if track is None:
        return None
    centred = (track - track.mean(axis=0)) / clip.width
    scatter = centred.std(axis=0)
    if scatter.max() < RESTS:
        return "still"
    across, down = (_straightness(centred[:, axis]) > STEADY for axis in (0, 1))
    if scatter.min() < 0.4 * scatter.max():
        way = 0 if scatter[0] > scatter[1] else 1
        return None if (across, down)[way] else ("sideways", "vertical")[way]
    if across != down:
        return "bounce" if across else "zigzag"
    radius = np.linalg.norm(centred - _centre_of_circle(centred), axis=1)
    return "circle" if radius.std() < 0.2 * radius.mean() and not across else None


def _bounce_count(clip: Clip, item: Item) -> str | None:
    track = clip.track(colours_in(item.question)[0])
    if track is None:
        return None
    height = track[:, 1]
    rise = max(0.25 * np.ptp(height), MOVED * clip.width)
    return str(_falls(height, rise))


_JUDGES: dict[str, Callable[[Clip, Item], str | None]] = {
    "counting": _counting,
    "direction": _direction,
    "relative_position": _relative_position,
    "relative_size": _relative_size,
    "colour": _colour,
    "state": _state,
    "motion": _motion,
    "bounce_count": _bounce_count,
    "two_movers": _direction,
}


def _named_pair(clip: Clip, item: Item) -> tuple[Blob, Blob] | None:
    """The shapes in the two colours of the question, in its order; None unless exactly two shapes are seen."""
    [blobs] = clip.windows(1)
    if len(blobs) != 2:
        return None
    one, other = colours_in(item.question)
    costs = [[unlikeness(blob.colour, colour) for blob in blobs] for colour in (one, other)]
    first = int(costs[0][1] + costs[1][0] < costs[0][0] + costs[1][1])
    return blobs[first], blobs[1 - first]


def _unlike_shape(blob: Blob, wanted: str) -> float:
    """Distance of the blob's moments to the wanted shape, minus that to the nearest other shape."""
    scale = np.array([MOMENTS["triangle"][0], MOMENTS["square"][1]])
    seen = np.array([blob.third, blob.fourth]) / scale
    away = {shape: float(np.linalg.norm(seen - np.array(moments) / scale)) for shape, moments in MOMENTS.items()}
    return away.pop(wanted) - min(away.values())


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _straightness(places: np.ndarray) -> float:
    """R² of uniform motion along one axis: places (F,) against the frame number."""
    if places.std() == 0:
        return 0.0
    return float(np.corrcoef(places, np.arange(len(places)))[0, 1] ** 2)


def _centre_of_circle(track: np.ndarray) -> np.ndarray:
    """Centre of the circle that fits a track (F, 2) best, by linear least squares (Kåsa)."""
    rows = np.column_stack([2 * track, np.ones(len(track))])
    return np.linalg.lstsq(rows, (track**2).sum(axis=1), rcond=None)[0][:2]


def _falls(height: np.ndarray, rise: float) -> int:
    """Count the bounces: how often y (pointing down) reaches a maximum and then decreases by `rise`."""
    falls, falling, extreme = 0, False, height[0]
    for y in height:
        if falling:
            extreme = max(extreme, y)
            if y < extreme - rise:
                falls, falling, extreme = falls + 1, False, y
        else:
            extreme = min(extreme, y)
            if y > extreme + rise:
                falling, extreme = True, y
    return falls
