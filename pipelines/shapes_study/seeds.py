"""A mean with its interval."""

from typing import NamedTuple


class Estimate(NamedTuple):
    """A mean with its 95 % interval.

    Attributes:
        mean: The mean, as a share.
        low: Lower bound of the interval.
        high: Upper bound of the interval.
        text: Mean and interval in percent.
    """

    mean: float
    low: float
    high: float
    text: str


def mean(values: list[float]) -> float:
    """Returns the mean."""
    return sum(values) / len(values)


def percent(share: float) -> str:
    """Formats a share in percent with one decimal."""
    return f"{round(100 * share, 1) + 0:.1f}"  # + 0 turns -0.0 into 0.0
