"""Series of values that claims and tables compare. More is better in all of them.

understanding                  right answers about clips
training free                  the same, by a model that reads training-free tokens instead of its own
generation, prompt, own        right answers about videos of this kind (:mod:`pipelines.shapes_study.strategies.making`)
prompt place, own size, ...    minus the distance of a video's things from those of the true clip
"""

from collections.abc import Sequence

import numpy as np

from pipelines.shapes_study.paired import Variances, paired_difference, seed_square_of_arms, variances
from pipelines.shapes_study.seeds import Estimate
from pipelines.shapes_study.strategies.likeness import AWAY, LEVELS, OCTAVES
from pipelines.shapes_study.strategies.results import Results, Values
from pipelines.shapes_study.strategies.world import NEW

UNDERSTANDING, TRAINING_FREE = "understanding", "training free"
MOST = {"place": AWAY, "size": OCTAVES}


# By seed, the value of each item.
Series = dict[int, np.ndarray]


class Pair:
    """Two series over the seeds that both have, item by item.

    Args:
        ours, theirs: The series.
        arms: The same series of all arms of the study, if the two are those of two arms. Seeds' variance is estimated
            from the arms that have all the pair's seeds.
    """

    def __init__(self, ours: Series, theirs: Series, arms: Sequence[Series] = ()):
        self.seeds = [seed for seed in ours if seed in theirs]
        self.ours, self.theirs = ([own[seed] for seed in self.seeds] for own in (ours, theirs))
        self.arms = [[own[seed] for seed in self.seeds] for own in arms if all(seed in own for seed in self.seeds)]

    @property
    def comparable(self) -> bool:
        """Whether there are seeds enough for an interval."""
        return len(self.seeds) > 1

    @property
    def items(self) -> int:
        """Items of a seed."""
        return len(self.ours[0])

    @property
    def difference(self) -> Estimate:
        """The mean difference with its interval."""
        return paired_difference(self.ours, self.theirs, seed_square_of_arms(self.arms) if self.arms else None)

    @property
    def variances(self) -> Variances:
        """The variances of the difference; that of seeds as in its interval."""
        own = variances(self.ours, self.theirs)
        if not self.arms:
            return own
        return own._replace(seed=max(0.0, (seed_square_of_arms(self.arms).value - own.rest) / self.items))


def series(results: Results, arm: str, name: str, split: str = NEW, category: str | None = None) -> Series:
    """Returns an arm's values by seed, (items,) each; empty if they were not measured.

    Args:
        results: The study's measurements.
        arm: The arm.
        name: The series.
        split: The split.
        category: Only the items of this category; all by default.
    """
    of, measure = parts_of(name)
    seeds = results.answers.get(arm, {}).get((of, split), {})
    return {
        seed: of_category(values_of(own, measure), results.categories[of, split], category)
        for seed, own in seeds.items()
    }


def parts_of(name: str) -> tuple[str, str]:
    """Returns what a series was asked, and the measure: ``place``, ``size``, or nothing for right answers."""
    of, _, measure = name.rpartition(" ")
    return (of, measure) if measure in MOST else (name, "")


def values_of(values: Values, measure: str) -> np.ndarray:
    """Returns right answers as 0 and 1, or minus the distances of a measure."""
    if not measure:
        return np.array(values["right"], float)
    return -MOST[measure] / LEVELS * np.array(values[measure], float)


def of_category(values: np.ndarray, names: Sequence[str], category: str | None) -> np.ndarray:
    """Returns the values of the items of a category; all with ``None``."""
    return values if category is None else values[[name == category for name in names]]


def compared(
    results: Results, arm: str, than: str, name: str, split: str = NEW, category: str | None = None,
    other: str | None = None,
) -> Pair:  # fmt: skip
    """Pairs the series of two arms. Arguments as in :func:`series`; ``other`` is the second arm's series."""
    ours, theirs = (series(results, arm, name, split, category), series(results, than, other or name, split, category))
    alike = other in (None, name)
    return Pair(ours, theirs, [series(results, each, name, split, category) for each in results.answers if alike])
