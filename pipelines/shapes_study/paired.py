"""The difference between two arms that share seeds and items."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from pipelines.shapes_study.seeds import Estimate, percent


class Variances(NamedTuple):
    """The variances of a difference d[s, q] between two arms, of seed s at item q.

    Attributes:
        seed: Of the part that all items of a seed share.
        item: Of the part that all seeds share at an item.
        rest: Of what is left.
    """

    seed: float
    item: float
    rest: float


class SeedSquare(NamedTuple):
    """The mean square of seeds of a difference between two arms.

    Attributes:
        value: The mean square.
        degrees: Its degrees of freedom.
    """

    value: float
    degrees: int


def paired_difference(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], of_arms: SeedSquare | None = None
) -> Estimate:
    """Returns the mean difference of two arms with its 95 % interval, for other seeds and other items.

    The difference d[s, q] of seed s at item q has three independent parts with variances of their own: one of the
    seed, one of the item, and a rest. With S seeds and Q items the variance of the mean is estimated by

        (MS_seeds + MS_items - MS_rest) / (S * Q),

    the mean squares of a two-way table (Searle et al., Variance Components, 1992, chapter 4), at least by the larger
    of the first two alone. The quantile is Student's with the degrees of freedom of MS_seeds, since seeds are the
    fewest.

    Args:
        ours, theirs: For each seed the value of every item, in the same order. Two seeds and two items or more.
        of_arms: MS_seeds of all arms (:func:`seed_square_of_arms`). By default these two arms' own, with S - 1 degrees.
    """
    d = np.asarray(ours, float) - np.asarray(theirs, float)
    of_seeds, of_items, of_rest = mean_squares(d)
    of_seeds, degrees = of_arms or SeedSquare(of_seeds, len(d) - 1)
    variance = max(of_seeds, of_items, of_seeds + of_items - of_rest) / d.size
    mean, half = float(d.mean()), float(t.ppf(0.975, degrees)) * math.sqrt(variance)
    sign = "+" if mean > 0 else ""
    return Estimate(mean, mean - half, mean + half, f"{sign}{percent(mean)} ± {percent(half)}")


def seed_square_of_arms(arms: Sequence[Sequence[Sequence[float]]]) -> SeedSquare:
    """Estimates MS_seeds of a difference between any two arms from all arms.

    The mixed model of arms and seeds: an arm's mean over the items of a seed is the arm's part, plus the seed's, which
    cancels in differences, plus a rest of the same variance in all arms. Few seeds of many arms tell this variance with
    (A - 1) * (S - 1) degrees of freedom, those of two arms alone with S - 1. For two arms both are the same.

    Args:
        arms: A arms with the values of S seeds at Q items each, all in the same order.
    """
    means = np.stack([np.asarray(arm, float).mean(1) for arm in arms])
    _, _, rest = mean_squares(means)
    items = np.shape(arms[0])[1]
    return SeedSquare(2 * items * rest, (means.shape[0] - 1) * (means.shape[1] - 1))


def variances(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Variances:
    """Estimates the variances of the difference of two arms. Arguments as in :func:`paired_difference`."""
    d = np.asarray(ours, float) - np.asarray(theirs, float)
    of_seeds, of_items, of_rest = mean_squares(d)
    seeds, items = d.shape
    return Variances(max(0.0, (of_seeds - of_rest) / items), max(0.0, (of_items - of_rest) / seeds), of_rest)


def mean_squares(table: ArrayLike) -> tuple[float, float, float]:
    """Returns the mean squares of seeds, of items and of the rest of a two-way table (seeds, items)."""
    d = np.asarray(table, float)
    (seeds, items), mean = d.shape, d.mean()
    by_seed, by_item = d.mean(1) - mean, d.mean(0) - mean
    rest = d - mean - by_seed[:, None] - by_item[None]
    of_seeds = items * float(by_seed @ by_seed) / (seeds - 1)
    of_items = seeds * float(by_item @ by_item) / (items - 1)
    return of_seeds, of_items, float((rest**2).sum()) / ((seeds - 1) * (items - 1))
