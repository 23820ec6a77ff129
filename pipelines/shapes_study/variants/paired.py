"""The difference between two arms that share seeds and questions."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t

from pipelines.shapes_study.seeds import Estimate, percent


def paired_difference(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> Estimate:
    """Returns the difference of two arms' accuracies with its 95 % interval, for other seeds and other questions.

    The difference d[s, q] of seed s at question q has three independent parts with variances of their own: one of the
    seed, one of the question, and a rest. With S seeds and Q questions the variance of the mean is estimated by

        (MS_seeds + MS_questions - MS_rest) / (S * Q),

    the mean squares of a two-way table (Searle et al., Variance Components, 1992, chapter 4), at least by the larger
    of the first two alone. The quantile is Student's with S - 1 degrees of freedom, since seeds are the fewest.

    Args:
        ours, theirs: For each seed, 1 or 0 for every question, in the same order. Two seeds and two questions or more.
    """
    d = np.asarray(ours, float) - np.asarray(theirs, float)
    (seeds, questions), mean = d.shape, float(d.mean())
    by_seed, by_question = d.mean(1) - mean, d.mean(0) - mean
    rest = d - mean - by_seed[:, None] - by_question[None]
    of_seeds = questions * float(by_seed @ by_seed) / (seeds - 1)
    of_questions = seeds * float(by_question @ by_question) / (questions - 1)
    of_rest = float((rest**2).sum()) / ((seeds - 1) * (questions - 1))
    variance = max(of_seeds, of_questions, of_seeds + of_questions - of_rest) / (seeds * questions)
    half = float(t.ppf(0.975, seeds - 1)) * math.sqrt(variance)
    sign = "+" if mean > 0 else ""
    return Estimate(mean, mean - half, mean + half, f"{sign}{percent(mean)} ± {percent(half)}")
