"""Paths of shapes: functions from times in 0..1, (F,), to displacements from the start, (F, 2) as x, y.

Lengths are fractions of the picture; y points down. Every path starts at displacement 0 for any phase, so the first
frame does not reveal the path.
"""

from collections.abc import Callable

import numpy as np

Path = Callable[[np.ndarray], np.ndarray]

DIAGONAL = 0.5**0.5
DIRECTIONS = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "up-left": (-DIAGONAL, -DIAGONAL),
    "up-right": (DIAGONAL, -DIAGONAL),
    "down-left": (-DIAGONAL, DIAGONAL),
    "down-right": (DIAGONAL, DIAGONAL),
}


def still(t: np.ndarray) -> np.ndarray:
    """No motion."""
    return np.zeros((len(t), 2))


def straight(direction: str, travel: float) -> Path:
    """Uniform motion over the distance `travel` in one of `DIRECTIONS`."""
    return lambda t: travel * np.outer(t, DIRECTIONS[direction])


def to_and_fro(axis: int, width: float, turns: float, phase: float) -> Path:
    """A triangle wave of amplitude `width` along x (axis 0) or y (axis 1), with `turns` periods."""
    return lambda t: _along(axis, width * (_triangle(phase + turns * t) - _triangle(phase)))


def circle(diameter: float, turns: float, phase: float) -> Path:
    """Uniform circular motion, `turns` revolutions; clockwise on the screen for positive `turns`."""

    def path(t: np.ndarray) -> np.ndarray:
        angle = 2 * np.pi * (phase + turns * t)
        start = 2 * np.pi * phase
        return diameter / 2 * np.stack([np.cos(angle) - np.cos(start), np.sin(angle) - np.sin(start)], axis=1)

    return path


def zigzag(travel: float, width: float, turns: float, phase: float) -> Path:
    """Uniform vertical motion (down for positive `travel`) with a triangle wave along x."""
    sideways = to_and_fro(0, width, turns, phase)
    return lambda t: sideways(t) + _along(1, travel * t)


def bouncing(travel: float, height: float, hops: float, phase: float) -> Path:
    """A bouncing ball that moves along x: parabolas that touch the ground where phase + hops·t is an integer."""

    def above(u: np.ndarray | float) -> np.ndarray:
        u = np.asarray(u) % 1
        return 4 * height * u * (1 - u)

    return lambda t: _along(0, travel * t) + _along(1, above(phase) - above(phase + hops * t))


def _triangle(u: np.ndarray | float) -> np.ndarray:
    """A triangle wave of period 1 between 0 and 1."""
    return np.abs(2 * (np.asarray(u) % 1) - 1)


def _along(axis: int, distance: np.ndarray) -> np.ndarray:
    """Distances (F,) along one axis as displacements (F, 2)."""
    return np.stack([distance, np.zeros_like(distance)][:: 1 - 2 * axis], axis=1)
