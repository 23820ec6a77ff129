"""How a shape moves: functions from times in 0..1, (F,), to displacements from the start, (F, 2) as x, y.

Lengths are shares of the picture; y points down. Every path begins at displacement 0, whatever its phase: where a
shape is first seen says nothing of where it goes.
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
    return np.zeros((len(t), 2))


def straight(direction: str, travel: float) -> Path:
    return lambda t: travel * np.outer(t, DIRECTIONS[direction])


def to_and_fro(axis: int, width: float, turns: float, phase: float) -> Path:
    """Along x (axis 0) or y (axis 1), evenly and with sharp turns."""
    return lambda t: _along(axis, width * (_triangle(phase + turns * t) - _triangle(phase)))


def circle(diameter: float, turns: float, phase: float) -> Path:
    def path(t: np.ndarray) -> np.ndarray:
        angle = 2 * np.pi * (phase + turns * t)
        start = 2 * np.pi * phase
        return diameter / 2 * np.stack([np.cos(angle) - np.cos(start), np.sin(angle) - np.sin(start)], axis=1)

    return path


def zigzag(travel: float, width: float, turns: float, phase: float) -> Path:
    """Up or down, by the sign of `travel`, from side to side meanwhile."""
    sideways = to_and_fro(0, width, turns, phase)
    return lambda t: sideways(t) + _along(1, travel * t)


def bouncing(travel: float, height: float, hops: float, phase: float) -> Path:
    """Along x like a ball: parabolas that meet the ground wherever phase + hops·t is a whole number."""

    def above(u: np.ndarray | float) -> np.ndarray:
        u = u % 1
        return 4 * height * u * (1 - u)

    return lambda t: _along(0, travel * t) + _along(1, above(phase) - above(phase + hops * t))


def _triangle(u: np.ndarray | float) -> np.ndarray:
    """A wave of period 1 between 0 and 1."""
    return np.abs(2 * (u % 1) - 1)


def _along(axis: int, distance: np.ndarray) -> np.ndarray:
    return np.stack([distance, np.zeros_like(distance)][:: 1 - 2 * axis], axis=1)
