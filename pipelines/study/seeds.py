"""Accuracies over seeds, with 95 % intervals."""

import math
from typing import Any, NamedTuple

from scipy.stats import t

from pipelines.accuracy import wilson

# What a stage measured.
Figures = dict[str, Any]


class Estimate(NamedTuple):
    """A mean and what is likely to hold the true one, with how both are written, in %."""

    mean: float
    low: float
    high: float
    text: str


def over_seeds(shares: list[float]) -> Estimate:
    """Student's interval of the mean of several seeds' accuracies, or of their differences."""
    middle, n = mean(shares), len(shares)
    deviation = math.sqrt(sum((share - middle) ** 2 for share in shares) / (n - 1))
    quantile = round(float(t.ppf(0.975, n - 1)), 3)  # as printed tables give it: the published report rests on those
    half = quantile * deviation / math.sqrt(n)
    return Estimate(middle, middle - half, middle + half, f"{percent(middle)} ± {percent(half)}")


def accuracy(shares: list[float], asked: int) -> Estimate:
    """Over seeds, or of a single one over the questions that it was asked (Wilson's interval)."""
    if len(shares) > 1:
        return over_seeds(shares)
    interval = wilson(round(shares[0] * asked), asked)
    text = f"{percent(shares[0])} ({percent(interval.low)}–{percent(interval.high)})"
    return Estimate(shares[0], interval.low, interval.high, text)


def share(line: Figures) -> float:
    """Accuracy in one category."""
    return line["right"] / line["asked"]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def percent(share: float) -> str:
    return f"{round(100 * share, 1) + 0:.1f}"  # + 0: none is written -0.0
