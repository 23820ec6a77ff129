"""An accuracy and its 95 % confidence interval."""

from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class Interval:
    """A confidence interval of an accuracy.

    Attributes:
        low: Lower bound, in 0..1.
        high: Upper bound, in 0..1.
    """

    low: float
    high: float

    def __contains__(self, share: float) -> bool:
        return self.low <= share <= self.high


def wilson(right: int, asked: int) -> Interval:
    """Returns Wilson's 95 % score interval of the accuracy ``right / asked`` (JASA 22, 1927, p. 209).

    The interval is never empty and never leaves 0..1.

    Raises:
        ValueError: ``asked`` is zero, or ``right`` is not in 0..``asked``.
    """
    interval = binomtest(right, asked).proportion_ci(confidence_level=0.95, method="wilson")
    return Interval(float(interval.low), float(interval.high))
