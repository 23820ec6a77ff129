"""The statistics of the study of strategies: variances, intervals, and how many seeds and items are enough."""

import re

import numpy as np
import pytest

from data_tools.shapes import CATEGORIES, TV_ALIGN
from pipelines.shapes_study.paired import (
    Variances,
    mean_squares,
    paired_difference,
    seed_square_of_arms,
    variances,
)
from pipelines.shapes_study.power import Pilot, cheapest, half_width, plan_of, pooled, seeds_for
from pipelines.shapes_study.strategies.config import STRATEGIES, load_strategies
from pipelines.shapes_study.strategies.series import Pair


def simulated(parts: Variances, seeds: int, items: int, draws: np.random.Generator, mean: float = 0.0) -> np.ndarray:
    """Draws a difference (seeds, items) with known variances."""
    scales = np.sqrt(parts)
    of_seeds, of_items = draws.normal(0, scales[0], (seeds, 1)), draws.normal(0, scales[1], (1, items))
    return mean + of_seeds + of_items + draws.normal(0, scales[2], (seeds, items))


def test_variances_of_simulated_differences_are_found():
    true, draws = Variances(0.01, 0.04, 0.2), np.random.default_rng(0)
    found = pooled(variances(simulated(true, 6, 100, draws), np.zeros((6, 100))) for _ in range(200))
    assert found == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize("seeds, items", [(3, 200), (8, 60)])
def test_the_predicted_half_width_is_the_observed_one_and_intervals_cover(seeds, items):
    true, draws = Variances(0.004, 0.05, 0.2), np.random.default_rng(1)
    found = [paired_difference(simulated(true, seeds, items, draws, 0.1), np.zeros((seeds, items))) for _ in range(600)]
    observed = np.sqrt(np.mean([((one.high - one.low) / 2) ** 2 for one in found]))
    assert observed == pytest.approx(half_width(true, seeds, items), rel=0.08)
    assert np.mean([one.low < 0.1 < one.high for one in found]) > 0.93


def test_seeds_of_all_arms_together_tell_their_variance_and_intervals_cover():
    """Three seeds of eight arms: the same coverage as with two arms, and narrower intervals."""
    draws, arms, seeds, items = np.random.default_rng(3), 8, 3, 100
    covered, halves, alone = [], [], []
    for _ in range(300):
        common = draws.normal(0, 0.1, (1, seeds, 1)) + draws.normal(0, 0.2, (1, 1, items))
        of_arms = draws.normal(0, 0.05, (arms, seeds, 1)) + draws.normal(0, 0.1, (arms, 1, items))
        answers = common + of_arms + draws.normal(0, 0.3, (arms, seeds, items))
        pooled_over = paired_difference(answers[0], answers[1], seed_square_of_arms(list(answers)))
        pair = paired_difference(answers[0], answers[1])
        covered.append(pooled_over.low < 0 < pooled_over.high)
        halves.append(pooled_over.high - pooled_over.low)
        alone.append(pair.high - pair.low)
    assert 0.92 < np.mean(covered) < 0.985
    assert np.mean(halves) < 0.6 * np.mean(alone)


def test_of_two_arms_the_variance_of_seeds_is_their_own():
    draws = np.random.default_rng(4)
    ours, theirs = draws.random((4, 50)), draws.random((4, 50))
    own = seed_square_of_arms([ours, theirs])
    assert own == pytest.approx((mean_squares(ours - theirs)[0], 3))
    assert paired_difference(ours, theirs, own)[:3] == pytest.approx(paired_difference(ours, theirs)[:3])
    assert half_width(Variances(4, 0, 0), 4, 10, arms=8) == pytest.approx(2.0796, abs=1e-4)  # t of 21 degrees


def test_a_pair_takes_the_arms_that_have_its_seeds():
    draws = np.random.default_rng(5)
    one, two, three, late = ({seed: draws.random(20) for seed in range(count)} for count in (3, 3, 3, 2))
    pair = Pair(one, two, [one, two, three, late])
    assert len(pair.arms) == 3
    assert pair.difference == paired_difference(pair.ours, pair.theirs, seed_square_of_arms(pair.arms))
    assert Pair(one, two).difference == paired_difference(pair.ours, pair.theirs)
    assert len(Pair(one, late, [one, two, three, late]).arms) == 4


def test_the_cheapest_plan_is_enough_and_no_cheaper_one_is():
    pilot = Pilot(Variances(6, 430, 1800), Variances(35, 300, 1800))
    plan = cheapest(pilot, 9, over_all=3, category=8, training=600, item=0.05)
    assert plan.over_all <= 3 and plan.category <= 8
    assert plan == plan_of(pilot, 9, plan.seeds, plan.items)
    fewer = plan_of(pilot, 9, plan.seeds - 1, 400)
    assert fewer.over_all > 3 or fewer.category > 8  # a training costs more than all questions
    assert cheapest(Pilot(Variances(1e6, 0, 0), Variances(0, 0, 0)), 9, 3, 8, 600, 0.05) is None
    assert seeds_for(Variances(4, 0, 0), 100, half=1.0) == 18  # t is 2.110: 2.110 * sqrt(4 / 18) = 0.995
    assert seeds_for(Variances(0, 1, 0), 100, half=0.1) is None  # no number of seeds makes up for few items


def test_numbers_are_chosen_for_the_precision_that_is_wanted():
    """The config states the pilot's variances and, in a comment, the half-widths that they predict."""
    config = load_strategies(STRATEGIES, "cpu")
    stated = re.search(r"cpu:\n((?:    #.*\n)+)", STRATEGIES.read_text()).group(1)
    for protocol, categories, items in (
        ("understanding", len(CATEGORIES), config.asked.questions), ("generation", len(TV_ALIGN), config.asked.videos),
    ):  # fmt: skip
        plan = plan_of(config.power.pilot_of(protocol), categories, config.seeds, items, len(config.arms))
        assert plan.over_all <= config.power.over_all and plan.category <= config.power.category
        assert f"{protocol} {plan.over_all:.1f} over all, {plan.category:.1f} in a category" in stated
