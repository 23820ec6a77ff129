"""The judge of the shapes world, on clips that Pillow drew: right when they are clean or harmed, silent on noise."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from data_tools.draws import Draws
from data_tools.shapes import CATEGORIES, COLOURS, item_of, scene_of
from data_tools.shapes.judge import answer
from pipelines.evaluation.accuracy import wilson
from support.shapes_drawn import HARMS, draw_clip

SEED = 20
IN_TIME = ("direction", "state", "motion", "bounce_count", "two_movers")
UNTOLD = {  # answers that a frozen first frame shows as well as the clip did
    "state": {"Nothing happens."},
    "motion": {"It does not move."},
}


def cases(category, count):
    """(item, clip drawn by Pillow), the labels in turn."""
    return (drawn(category, number) for number in range(count))


@cache
def drawn(category, number):
    labels, draws = tuple(CATEGORIES[category].answers), Draws(SEED, number)
    scene = scene_of(category, labels[number % len(labels)], draws)
    return item_of(scene, draws, str(number)), draw_clip(scene)


def score(category, count, change=lambda clip, random: clip):
    """(right, abstained) of `count`."""
    right = abstained = 0
    for number, (item, clip) in enumerate(cases(category, count)):
        said = answer(change(clip, np.random.default_rng(number)), item)
        right, abstained = right + (said == item.answer), abstained + (said is None)
    return right, abstained


def pure_noise(clip, random):
    return random.normal(127.5, 0.3 * 255, clip.shape).clip(0, 255).astype(np.uint8)


def reverse(clip, random):
    return clip[::-1]


def freeze(clip, random):
    return np.repeat(clip[:1], len(clip), axis=0)


KINDS = HARMS | {"noise only": pure_noise, "reversed": reverse, "frozen": freeze}


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_judge_is_right_on_clean_clips_of_another_renderer(category):
    count = len(CATEGORIES[category].answers)
    assert score(category, count) == (count, 0)


@pytest.mark.parametrize("harm", HARMS)
def test_the_judge_is_right_on_harmed_clips(harm):
    rights = [score(category, 2, HARMS[harm])[0] for category in CATEGORIES]
    assert sum(rights) >= 2 * len(CATEGORIES) - 1


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_judge_abstains_on_noise_and_on_an_empty_picture(category):
    assert score(category, 2, pure_noise) == (0, 2)
    assert score(category, 2, lambda clip, random: np.full_like(clip, 60)) == (0, 2)


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_judge_says_what_the_clip_shows_not_what_the_item_claims(category):
    for item, clip in other_clips(category, 3):
        assert answer(clip, item) != item.answer


def test_clips_run_backwards_or_frozen_lose_what_happens_in_time():
    for category in ("direction", "two_movers"):
        assert score(category, 4, reverse)[0] == 0
    for category in IN_TIME:
        for item, clip in cases(category, 8):
            told = item.answer in UNTOLD.get(category, ())
            assert (answer(freeze(clip, None), item) == item.answer) == told


def test_what_is_not_there_is_not_seen():
    """A question about a colour that no shape has gets no answer."""
    for item, clip in cases("direction", 4):
        absent = "blue" if "yellow" in item.question else "yellow"
        question = re.sub("|".join(COLOURS), absent, item.question)
        assert answer(clip, replace(item, question=question)) is None


def other_clips(category, count):
    """(item, clip of the same shapes that shows another of its options)."""
    answers = CATEGORIES[category].answers
    labels = tuple(answers)
    for number in range(count):
        draws = Draws(SEED, number)
        item = item_of(scene_of(category, labels[number % len(labels)], draws), draws, str(number))
        shown = next(label for label in labels if answers[label] in item.options and answers[label] != item.answer)
        yield item, draw_clip(scene_of(category, shown, draws))


def full_row(category):
    """Of the judge's table: 400 clean and 120 clips of each other kind. Run with -s to read it."""
    clean, others = 400, 120
    right = score(category, clean)[0]
    lower = wilson(right, clean).low
    shares = {name: score(category, others, change)[0] / others for name, change in KINDS.items()}
    said = [answer(clip, item) == item.answer for item, clip in other_clips(category, others)]
    shares["other answer"] = sum(said) / others
    table = [f"{name} {share:.3f}" for name, share in shares.items()]
    print(f"\n{category}: clean {right}/{clean} (lower bound {lower:.4f}), {', '.join(table)}")
    assert lower >= 0.99
    assert min(shares[name] for name in HARMS) >= 0.95
    assert max(shares["noise only"], shares["other answer"]) <= 0.1


@pytest.mark.slow
class TestTheJudgesFullTableInTime:  # two classes, for two of pytest's workers
    @pytest.mark.parametrize("category", IN_TIME)
    def test_row(self, category):
        full_row(category)


@pytest.mark.slow
class TestTheJudgesFullTableOfStills:
    @pytest.mark.parametrize("category", [category for category in CATEGORIES if category not in IN_TIME])
    def test_row(self, category):
        full_row(category)
