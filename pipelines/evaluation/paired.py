"""Compares two evaluations of the same items, item by item."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from pipelines.evaluation.accuracy import Interval

RESAMPLES = 10_000


@dataclass(frozen=True)
class Paired:
    """The difference of two accuracies on the same items.

    Attributes:
        gained: Items that only the second has right.
        lost: Items that only the first has right.
        difference: Accuracy of the second less that of the first, in -1..1.
        interval: 95 % interval of the difference, from a bootstrap over items.
        p_value: Two-sided p-value of McNemar's exact test that gains and losses are equally likely.
    """

    gained: int
    lost: int
    difference: float
    interval: Interval
    p_value: float


def paired(first: Sequence[bool], second: Sequence[bool], seed: int = 0) -> Paired:
    """Compares two lists of right (true) and wrong answers to the same items.

    Args:
        first, second: Whether each item was answered right.
        seed: Determines the bootstrap's draws.

    Raises:
        ValueError: The lists are empty, or differ in length.
    """
    if not first or len(first) != len(second):
        raise ValueError("two lists of the same items are wanted")
    change = np.asarray(second, int) - np.asarray(first, int)
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    # The mean of a resample depends only on how many gained and lost items it holds.
    shares = np.array([gained, lost, len(change) - gained - lost]) / len(change)
    drawn = np.random.default_rng(seed).multinomial(len(change), shares, RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / len(change), [0.025, 0.975])
    p_value = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return Paired(gained, lost, float(change.mean()), Interval(float(low), float(high)), float(p_value))


def kappa(first: Sequence[str | None], second: Sequence[str | None]) -> float:
    """Returns Cohen's kappa of two judges' answers: 1 for full agreement, 0 for that of chance.

    An abstention is an answer of its own. If both always give one and the same answer, kappa is 1.

    Raises:
        ValueError: The lists are empty, or differ in length.
    """
    if not first or len(first) != len(second):
        raise ValueError("two lists of answers to the same items are wanted")
    observed = sum(a == b for a, b in zip(first, second)) / len(first)
    names = {*first, *second}
    expected = sum(list(first).count(name) * list(second).count(name) for name in names) / len(first) ** 2
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)
