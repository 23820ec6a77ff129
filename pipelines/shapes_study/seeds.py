"""Accuracies over seeds, with 95 % confidence intervals."""

import math
from typing import Any, NamedTuple

from scipy.stats import t

from pipelines.evaluation.accuracy import wilson

# The measurements of a stage, by name.
Figures = dict[str, Any]


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


def over_seeds(shares: list[float]) -> Estimate:
    """Returns Student's t interval of the mean over seeds.

    Args:
        shares: Accuracies of two seeds or more, or differences of accuracies.
    """
    middle, n = mean(shares), len(shares)
    deviation = math.sqrt(sum((share - middle) ** 2 for share in shares) / (n - 1))
    quantile = round(float(t.ppf(0.975, n - 1)), 3)  # three decimals, as printed: the published report was made so
    half = quantile * deviation / math.sqrt(n)
    return Estimate(middle, middle - half, middle + half, f"{percent(middle)} ± {percent(half)}")


def accuracy(shares: list[float], asked: int) -> Estimate:
    """Returns the mean accuracy with its interval: Student's over seeds, or Wilson's over questions with one seed.

    Args:
        shares: The accuracy of each seed.
        asked: Questions per seed.
    """
    if len(shares) > 1:
        return over_seeds(shares)
    interval = wilson(round(shares[0] * asked), asked)
    text = f"{percent(shares[0])} ({percent(interval.low)}–{percent(interval.high)})"
    return Estimate(shares[0], interval.low, interval.high, text)


def share(line: Figures) -> float:
    """Returns the accuracy of a line."""
    return line["right"] / line["asked"]


def mean(values: list[float]) -> float:
    """Returns the mean."""
    return sum(values) / len(values)


def percent(share: float) -> str:
    """Formats a share in percent with one decimal."""
    return f"{round(100 * share, 1) + 0:.1f}"  # + 0 turns -0.0 into 0.0
