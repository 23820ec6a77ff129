"""The judge of the shapes world, on clips that Pillow drew: right when they are clean or harmed, silent on noise."""

import re
from dataclasses import replace

import numpy as np
import pytest

from data import judge_table
from data.judge_table import cases, freeze, other_clips, pure_noise, reverse, score
from data_tools.shapes import CATEGORIES, COLOURS
from data_tools.shapes.judge import answer
from support.shapes_drawn import HARMS

IN_TIME = ("direction", "state", "motion", "bounce_count", "two_movers")
UNTOLD = {  # answers that a frozen first frame shows as well as the clip did
    "state": {"Nothing happens."},
    "motion": {"It does not move."},
}


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


@pytest.mark.long
@pytest.mark.parametrize("category", CATEGORIES)
def test_a_row_of_the_judge_s_table(category):
    """A third of what ``judge_table.py`` asks; none of the clean clips may be misjudged, as in the whole table."""
    judge_table.check(judge_table.row_of(category, clean=130, others=40))
