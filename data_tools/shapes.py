"""Captioned clips of one moving shape, drawn by arithmetic: data for tests, examples and first runs.

A clip is a function of (seed, its number). What the caption says of the motion can be told only by watching: where
the shape starts, how large it is and its colour are drawn independently of how it moves.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .draws import Draws
from .encode import encode_mp4
from .errors import DataError

SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (230, 40, 40),
    "green": (40, 200, 70),
    "blue": (60, 110, 255),
    "yellow": (245, 220, 50),
    "purple": (180, 70, 220),
    "white": (240, 240, 240),
}
SIZES = {"small": 0.08, "large": 0.14}  # half a side or a radius, as a share of the picture
MOTIONS = {  # verb phrase of the caption, answer
    "left": ("moves to the left", "To the left."),
    "right": ("moves to the right", "To the right."),
    "up": ("moves up", "Up."),
    "down": ("moves down", "Down."),
    "circle": ("moves around in a circle", "Around in a circle."),
    "still": ("stays still", "It does not move."),
}
PHRASINGS = (
    "A {size} {colour} {shape} {moves}.",
    "In this clip a {size} {colour} {shape} {moves}.",
    "There is a {size} {shape}. It is {colour} and it {moves}.",
    "The video shows a {colour} {shape} that is {size} and {moves}.",
)
TRAVEL = 0.2  # from start to end, and the diameter of the circle: a large shape that starts near an edge stays inside
CRF = 18


@dataclass(frozen=True)
class Scene:
    """What a clip shows. Lengths are shares of the picture, the origin is its upper left corner."""

    shape: str
    colour: str
    size: str
    motion: str
    start: tuple[float, float]  # x, y of the shape's centre
    phase: float  # of the motion in a circle, radians
    background: tuple[tuple[float, ...], ...]  # two RGB colours between which it fades
    slope: float  # direction of the fade, radians


def draw_scene(draws: Draws) -> Scene:
    def one_of(purpose: str, names) -> str:
        return tuple(names)[draws.integer(purpose, len(names))]

    def between(purpose: str, low: float, high: float) -> float:
        return low + (high - low) * draws.uniform(purpose)

    return Scene(
        shape=one_of("shape", SHAPES),
        colour=one_of("colour", COLOURS),
        size=one_of("size", SIZES),
        motion=one_of("motion", MOTIONS),
        start=(between("x", 0.36, 0.64), between("y", 0.36, 0.64)),
        phase=between("phase", 0, 2 * np.pi),
        background=tuple(tuple(between(f"background-{end}-{c}", 10, 110) for c in "rgb") for end in "01"),
        slope=between("slope", 0, 2 * np.pi),
    )


def describe(scene: Scene, draws: Draws) -> tuple[str, str, str]:
    """Caption, question and answer."""
    moves, answer = MOTIONS[scene.motion]
    phrasing = PHRASINGS[draws.integer("phrasing", len(PHRASINGS))]
    caption = phrasing.format(size=scene.size, colour=scene.colour, shape=scene.shape, moves=moves)
    questions = (
        (f"Which way does the {scene.shape} move?", answer),
        (f"What colour is the {scene.shape}?", f"{scene.colour.capitalize()}."),
        ("What shape is shown?", f"A {scene.shape}."),
    )
    return caption, *questions[draws.integer("question", len(questions))]


def path_of(scene: Scene, frames: int) -> np.ndarray:
    """The centre of the shape in each frame, float32 (frames, 2) as x, y."""
    t = np.linspace(0, 1, frames, dtype=np.float32)
    zero = np.zeros_like(t)
    turn = scene.phase + 2 * np.pi * t
    moved = {
        "left": (-t, zero),
        "right": (t, zero),
        "up": (zero, -t),
        "down": (zero, t),
        "circle": ((np.cos(turn) - np.cos(scene.phase)) / 2, (np.sin(turn) - np.sin(scene.phase)) / 2),
        "still": (zero, zero),
    }[scene.motion]
    return np.float32(scene.start) + TRAVEL * np.stack(moved, axis=1).astype(np.float32)


def render(scene: Scene, frames: int, size: int) -> np.ndarray:
    """The clip, uint8 RGB (frames, size, size, 3), with edges one pixel soft."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    centre = path_of(scene, frames)
    x = grid[None, None, :] - centre[:, 0, None, None]
    y = grid[None, :, None] - centre[:, 1, None, None]
    outside = _distance(scene.shape, x, y, SIZES[scene.size]) * size
    cover = np.clip(0.5 - outside, 0, 1)[..., None]  # (frames, size, size, 1)
    background = _background(scene, grid)
    picture = background + cover * (np.float32(COLOURS[scene.colour]) - background)
    return (picture + 0.5).astype(np.uint8)


def _distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """How far each point lies outside the shape's edge; negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - radius * np.float32(0.9)
    # Equilateral, tip upwards: three edges at 120° from each other.
    slanted = np.abs(x) * np.float32(np.sqrt(3) / 2) - y / 2
    return np.maximum(slanted, y) - radius * np.float32(0.55)


def _background(scene: Scene, grid: np.ndarray) -> np.ndarray:
    """A fade between two dim colours, float32 (size, size, 3)."""
    along = np.cos(scene.slope) * (grid[None, :] - 0.5) + np.sin(scene.slope) * (grid[:, None] - 0.5)
    share = np.clip(along + 0.5, 0, 1).astype(np.float32)[..., None]
    first, second = np.float32(scene.background)
    return first + share * (second - first)


def render_clips(folder: str | Path, clips: int, seed: int, frames: int = 24, fps: int = 8, size: int = 64) -> None:
    """Write `clips` clips and then their captions.csv (path, caption, question, answer): an input for a build.

    Every other clip has a question; the others are there to be captioned.
    """
    folder = Path(folder)
    if clips < 1:
        raise DataError(f"the number of clips must be at least 1, not {clips}")
    if (folder / "captions.csv").exists():
        raise DataError(f"{folder} already holds clips: choose another folder or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(clips):
        draws = Draws(seed, number)
        scene = draw_scene(draws)
        name = f"{number:03d}.mp4"
        (folder / name).write_bytes(encode_mp4(render(scene, frames, size), fps, CRF))
        caption, *asked = describe(scene, draws)
        rows.append((name, caption, *(asked if number % 2 else ("", ""))))
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "caption", "question", "answer"))
        table.writerows(rows)
