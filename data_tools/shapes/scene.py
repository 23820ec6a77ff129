"""What a clip shows: a function of (seed, clip number, label).

In the categories about time (direction, state, motion, bounce_count, two_movers) the start, size and colour of a
shape are independent of the label. So the first frame does not reveal the answer.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from data_tools.draws import Draws
from data_tools.shapes import paths
from data_tools.shapes.vocabulary import CATEGORIES, COLOURS, SHAPES

Things = tuple[tuple["Thing", ...], str]  # the things of a scene, and its `other_label`

T = TypeVar("T")

SPLITS = ("all", "train", "test")
SIDES = {"small": 0.15, "large": 0.22}  # square root of the area: all shapes of one size have the same area
CHANGE = 0.1  # duration of a change of state, as a fraction of the clip
GROWN, SHRUNK = 1.45, 0.62  # factors of the side


@dataclass(frozen=True)
class Thing:
    """One shape. Lengths are fractions of the picture; the origin is its upper left corner.

    Attributes:
        shape: one of `SHAPES`.
        colour: one of `COLOURS`.
        side: square root of the area.
        start: centre at time 0, as x, y.
        size: "small" or "large" if the caption mentions it, else "".
        path: displacement from `start` at times in 0..1.
        change: a label of the category `state`.
        when: middle of the change, in 0..1.
        colour_after: colour after the change "changes", else "".
    """

    shape: str
    colour: str
    side: float
    start: tuple[float, float]
    size: str = ""
    path: paths.Path = paths.still
    change: str = "stays"
    when: float = 0.5
    colour_after: str = ""

    def centres(self, t: np.ndarray) -> np.ndarray:
        """Centres (F, 2) as x, y at times `t` (F,)."""
        return np.array(self.start) + self.path(t)

    def sides(self, t: np.ndarray) -> np.ndarray:
        """Sides (F,) at times `t` (F,)."""
        factor = {"grows": GROWN, "shrinks": SHRUNK}.get(self.change, 1.0)
        return self.side * (1 + (factor - 1) * self._changed(t))

    def colours(self, t: np.ndarray) -> np.ndarray:
        """RGB colours (F, 3) in 0..255 at times `t` (F,)."""
        before = np.array(COLOURS[self.colour], float)
        after = np.array(COLOURS[self.colour_after or self.colour], float)
        return before + self._changed(t)[:, None] * (after - before)

    def opacities(self, t: np.ndarray) -> np.ndarray:
        """Opacities (F,) in 0..1 at times `t` (F,)."""
        changed = self._changed(t)
        return {"appears": changed, "disappears": 1 - changed}.get(self.change, np.ones_like(changed))

    def _changed(self, t: np.ndarray) -> np.ndarray:
        """Progress of the change (F,) in 0..1."""
        return np.clip((t - self.when) / CHANGE + 0.5, 0, 1)


@dataclass(frozen=True)
class Scene:
    """The content of one clip.

    Attributes:
        category: one of `CATEGORIES`.
        label: the label that the clip shows.
        things: all shapes; the question is about the first.
        other_label: the label of the second shape in the categories `colour` and `two_movers`, else "".
        background: the two RGB colours of the gradient.
        slope: direction of the gradient, radians.
    """

    category: str
    label: str
    things: tuple[Thing, ...]
    other_label: str
    background: tuple[tuple[float, ...], tuple[float, ...]]
    slope: float


def draw_scene(draws: Draws, split: str = "all", categories: Sequence[str] = tuple(CATEGORIES)) -> Scene:
    """The scene at `draws.position`. Clips cycle through the categories, and each category through its labels.

    The order within a cycle is drawn.
    """
    number, place = divmod(draws.position, len(categories))
    category = _in_turn(draws.run_seed, "category", number, tuple(categories))[place]
    labels = tuple(CATEGORIES[category].answers)
    again, place = divmod(number, len(labels))
    return scene_of(category, _in_turn(draws.run_seed, category, again, labels)[place], draws, split)


def _in_turn(seed: int, what: str, number: int, names: tuple[str, ...]) -> list[str]:
    """The names in the drawn order of cycle `number`."""
    draws = Draws(seed, number)
    return sorted(names, key=lambda name: draws.seed(f"turn/{what}/{name}"))


def scene_of(category: str, label: str, draws: Draws, split: str = "all") -> Scene:
    """A scene that shows `label`.

    Args:
        category: one of `CATEGORIES`.
        label: one of the category's labels.
        draws: the randomness of the scene.
        split: "test" uses only held-out combinations of colour, shape and label, "train" only the others, "all" both.
    """
    drawn = _Drawn(draws, category, label, split)
    things, other_label = _THINGS[category](drawn)
    plain = draws.integer("plain", 3) == 0
    first, second = (tuple(drawn.between(f"background-{end}-{c}", 10, 70) for c in "rgb") for end in "01")
    background = (first, first if plain else second)
    return Scene(category, label, things, other_label, background, drawn.between("slope", 0, 2 * np.pi))


def held_out(category: str, label: str, colour: str, shape: str) -> bool:
    """Whether a combination belongs to the test split.

    For each shape and label, one colour of six is held out. In the category `colour`, where the label is the colour,
    one shape of three is.
    """
    place = list(CATEGORIES[category].answers).index(label)
    return (list(COLOURS).index(colour) + 2 * SHAPES.index(shape) + place) % len(COLOURS) == 0


class _Drawn:
    """The draws of one scene, each by its purpose."""

    def __init__(self, draws: Draws, category: str, label: str, split: str):
        self.draws, self.category, self.label = draws, category, label
        looks = [
            (colour, shape)
            for colour in COLOURS
            for shape in SHAPES
            if (category != "colour" or colour == label)
            and (split == "all" or held_out(category, label, colour, shape) == (split == "test"))
        ]
        self.colour, self.shape = self.one_of("looks", looks)

    def one_of(self, purpose: str, choices: Iterable[T]) -> T:
        """One of the choices, uniformly."""
        choices = tuple(choices)
        return choices[self.draws.integer(purpose, len(choices))]

    def between(self, purpose: str, low: float, high: float) -> float:
        """A float in [low, high), uniformly."""
        return low + (high - low) * self.draws.uniform(purpose)

    def spots(self, count: int, low: float, high: float, apart: float) -> list[tuple[float, float]]:
        """`count` points in the square [low, high)², at least `apart` from each other."""
        random = np.random.default_rng(self.draws.seed("spots"))
        while True:
            tries = random.uniform(low, high, (64, count, 2))
            gaps = np.linalg.norm(tries[:, :, None] - tries[:, None], axis=-1) + 2 * np.eye(count)
            good = np.flatnonzero(gaps.min(axis=(1, 2)) >= apart)
            if len(good):
                return [_place(spot) for spot in tries[good[0]]]

    def others(self, spots: list[tuple[float, float]], sides: list[float]) -> list[Thing]:
        """Further things at these points, all of different colours."""
        colours = [colour for colour in COLOURS if colour != self.colour]
        colours.sort(key=lambda colour: self.draws.seed(f"other/{colour}"))
        shapes = [self.one_of(f"other-shape-{i}", SHAPES) for i in range(len(spots))]
        return [Thing(*looks) for looks in zip(shapes, colours, sides, spots)]

    def alone(self, path: paths.Path) -> Things:
        """One small or large thing that follows `path`, which must stay within 0.2 of its start."""
        size = self.one_of("size", SIDES)
        start = (self.between("x", 0.4, 0.6), self.between("y", 0.4, 0.6))
        return (Thing(self.shape, self.colour, SIDES[size], start, size, path),), ""


def _counting(drawn: _Drawn) -> Things:
    side = drawn.between("side", 0.14, 0.17)
    spots = drawn.spots(int(drawn.label), 0.17, 0.83, 0.3)
    return tuple(Thing(drawn.shape, drawn.colour, side, spot) for spot in spots), ""


def _direction(drawn: _Drawn) -> Things:
    return drawn.alone(paths.straight(drawn.label, drawn.between("travel", 0.15, 0.2)))


def _relative_position(drawn: _Drawn) -> Things:
    axis = int(drawn.label in ("above", "below"))
    sign = -1 if drawn.label in ("left", "above") else 1
    way = [sign * drawn.between("gap", 0.36, 0.5), drawn.between("aside", -0.08, 0.08)]
    half = np.array(way[::-1] if axis else way) / 2
    middle = np.array([drawn.between("x", 0.45, 0.55), drawn.between("y", 0.45, 0.55)])
    sides = [drawn.between(f"side-{i}", 0.15, 0.18) for i in "01"]
    one = Thing(drawn.shape, drawn.colour, sides[0], _place(middle + half))
    return (one, *drawn.others([_place(middle - half)], sides[1:])), ""


def _relative_size(drawn: _Drawn) -> Things:
    small, large = SIDES.values()
    same = drawn.one_of("side", SIDES.values())
    one, other = {"larger": (large, small), "smaller": (small, large), "same": (same, same)}[drawn.label]
    spots = drawn.spots(2, 0.22, 0.78, 0.42)
    return (Thing(drawn.shape, drawn.colour, one, spots[0]), *drawn.others(spots[1:], [other])), ""


def _colour(drawn: _Drawn) -> Things:
    """Two things of different shape and colour; the question names the shape."""
    spots = drawn.spots(2, 0.22, 0.78, 0.44)
    sides = [drawn.between(f"side-{i}", 0.2, 0.24) for i in "01"]
    [other] = drawn.others(spots[1:], sides[1:])
    other = replace(other, shape=drawn.one_of("other-shape", [shape for shape in SHAPES if shape != drawn.shape]))
    return (Thing(drawn.shape, drawn.colour, sides[0], spots[0]), other), other.colour


def _state(drawn: _Drawn) -> Things:
    """One or two visible things at first, independent of the label; one that appears has a free place."""
    spots = drawn.spots(3, 0.23, 0.77, 0.38)
    sides = [drawn.between(f"side-{i}", 0.155, 0.18) for i in "012"]
    first = drawn.one_of("first", (1, 2))
    others = drawn.others(spots[1:], sides[1:])[: first if drawn.label == "appears" else first - 1]
    after = drawn.one_of("after", [c for c in COLOURS if c not in {drawn.colour, *(other.colour for other in others)}])
    one = Thing(
        drawn.shape,
        drawn.colour,
        sides[0],
        spots[0],
        change=drawn.label,
        when=drawn.between("when", 0.35, 0.65),
        colour_after=after if drawn.label == "changes" else "",
    )
    return (one, *others), ""


def _motion(drawn: _Drawn) -> Things:
    phase, sign = drawn.between("phase", 0, 1), drawn.one_of("sign", (-1, 1))
    turns = drawn.between("turns", 1.5, 2.5)
    width = drawn.between("width", 0.16, 0.2)
    return drawn.alone(
        {
            "sideways": paths.to_and_fro(0, width, turns, phase),
            "vertical": paths.to_and_fro(1, width, turns, phase),
            "circle": paths.circle(width, sign * turns / 1.5, phase),
            "zigzag": paths.zigzag(sign * width, 0.75 * width, turns, phase),
            "bounce": paths.bouncing(sign * width, width, turns, phase),
            "still": paths.still,
        }[drawn.label]
    )


def _bounce_count(drawn: _Drawn) -> Things:
    """The ball starts and ends well above the ground, at heights that are independent of the count."""
    first, last = (drawn.between(f"phase-{end}", 0.3, 0.7) for end in ("first", "last"))
    sign, travel, height = drawn.one_of("sign", (-1, 1)), drawn.between("travel", 0.12, 0.2), 0.2
    return drawn.alone(paths.bouncing(sign * travel, height, int(drawn.label) + last - first, first))


def _two_movers(drawn: _Drawn) -> Things:
    other_label = drawn.one_of("other-way", [way for way in paths.DIRECTIONS if way != drawn.label])
    spots = drawn.spots(2, 0.27, 0.73, 0.44)
    sides = [drawn.between(f"side-{i}", 0.14, 0.16) for i in "01"]
    ways = [paths.straight(way, drawn.between("travel", 0.1, 0.12)) for way in (drawn.label, other_label)]
    [other] = drawn.others(spots[1:], sides[1:])
    one = Thing(drawn.shape, drawn.colour, sides[0], spots[0], path=ways[0])
    return (one, replace(other, path=ways[1])), other_label


def _place(point: np.ndarray) -> tuple[float, float]:
    """An array (2,) as a pair of floats."""
    return float(point[0]), float(point[1])


_THINGS: dict[str, Callable[[_Drawn], Things]] = {
    "counting": _counting,
    "direction": _direction,
    "relative_position": _relative_position,
    "relative_size": _relative_size,
    "colour": _colour,
    "state": _state,
    "motion": _motion,
    "bounce_count": _bounce_count,
    "two_movers": _two_movers,
}
