"""How many seeds and items a difference between two arms needs, given the variances that a pilot measured.

The variance of seeds is estimated from all arms of a study
(:func:`pipelines.shapes_study.paired.seed_square_of_arms`). So the more arms it has, the fewer seeds are enough.
"""

import math
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from scipy.stats import t

from pipelines.shapes_study.paired import Variances

MOST_SEEDS = 100
ITEMS = range(10, 401, 10)  # in a category


class Pilot(NamedTuple):
    """Variances of the difference between two arms.

    Attributes:
        over_all: Of all items.
        category: Of the items of one category.
    """

    over_all: Variances
    category: Variances


class Plan(NamedTuple):
    """Numbers of a study, and the half-widths of the 95 % interval of a difference that they are to give.

    Attributes:
        seeds: Seeds of each arm.
        items: Items of each category.
        over_all: Half-width over all items.
        category: Half-width over a category's items.
    """

    seeds: int
    items: int
    over_all: float
    category: float


@cache
def quantile(seeds: int, arms: int) -> float:
    """Returns Student's quantile of a 95 % interval, with the degrees of freedom of seeds in arms."""
    return float(t.ppf(0.975, (seeds - 1) * (arms - 1)))


def half_width(parts: Variances, seeds: int, items: int, arms: int = 2) -> float:
    """Returns the expected half-width of the 95 % interval of a difference, in the root of the variances' unit.

    Args:
        parts: The variances of the difference.
        seeds: Seeds of each arm, two or more.
        items: Items that each seed is asked.
        arms: Arms that the variance of seeds is estimated from.
    """
    variance = parts.seed / seeds + parts.item / items + parts.rest / (seeds * items)
    return quantile(seeds, arms) * math.sqrt(variance)


def plan_of(pilot: Pilot, categories: int, seeds: int, items: int, arms: int = 2) -> Plan:
    """Returns a plan with its half-widths. ``items`` are those of each category."""
    over_all = half_width(pilot.over_all, seeds, categories * items, arms)
    return Plan(seeds, items, over_all, half_width(pilot.category, seeds, items, arms))


def cheapest(
    pilot: Pilot, categories: int, over_all: float, category: float, training: float, item: float, arms: int = 2
) -> Plan | None:
    """Returns the plan with the least work whose half-widths are small enough, or ``None`` if there is none.

    Args:
        pilot: The variances.
        categories: The number of categories.
        over_all: Largest half-width over all items.
        category: Largest half-width over a category's items.
        training: Seconds that the training of an arm with one seed takes.
        item: Seconds that an item takes.
        arms: Arms of the study.
    """
    plans = (plan_of(pilot, categories, seeds, items, arms) for seeds in range(2, MOST_SEEDS + 1) for items in ITEMS)
    enough = [plan for plan in plans if plan.over_all <= over_all and plan.category <= category]
    return min(enough, key=lambda plan: plan.seeds * (training + categories * plan.items * item), default=None)


def seeds_for(parts: Variances, items: int, half: float, arms: int = 2) -> int | None:
    """Returns the fewest seeds that make the half-width smaller than ``half``, or ``None`` above ``MOST_SEEDS``."""
    return next((n for n in range(2, MOST_SEEDS + 1) if half_width(parts, n, items, arms) < half), None)


def pooled(parts: Iterable[Variances]) -> Variances:
    """Returns the mean of each variance over several differences."""
    columns = list(zip(*parts))
    return Variances(*(sum(column) / len(column) for column in columns))
