"""Accuracy with its uncertainty."""

from dataclasses import dataclass
from math import sqrt

Z95 = 1.959964  # standard deviations that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Interval:
    low: float
    high: float

    def __contains__(self, share: float) -> bool:
        return self.low <= share <= self.high


def wilson(right: int, asked: int, z: float = Z95) -> Interval:
    """Wilson's score interval for a share (JASA 22, 1927, p. 209): never empty, never outside 0..1.

    Raises:
        ValueError: nothing was asked, or more was right than asked.
    """
    if not 0 <= right <= asked or asked == 0:
        raise ValueError(f"{right} right of {asked} asked is no share")
    share = right / asked
    middle = share + z * z / (2 * asked)
    half = z * sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked))
    whole = 1 + z * z / asked
    return Interval(max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole))
