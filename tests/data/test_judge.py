"""The judge of the shapes world, on clips that Pillow drew: right when they are clean or harmed, silent on noise."""

import numpy as np
import pytest

from data_tools.draws import Draws
from data_tools.shapes import CATEGORIES, item_of, scene_of
from data_tools.shapes.judge import answer
from pipelines.accuracy import wilson
from support.shapes_drawn import HARMS, draw_clip

SEED = 20
IN_TIME = ("direction", "state", "motion", "bounce_count", "two_movers")
UNTOLD = {  # answers that a frozen first frame shows as well as the clip did
    "state": {"Nothing happens."},
    "motion": {"It does not move."},
}


def cases(category, count):
    """(item, clip drawn by Pillow), the labels in turn."""
    labels = tuple(CATEGORIES[category].answers)
    for number in range(count):
        draws = Draws(SEED, number)
        scene = scene_of(category, labels[number % len(labels)], draws)
        yield item_of(scene, draws, str(number)), draw_clip(scene)


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


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_judge_is_right_on_clean_clips_of_another_renderer(category):
    count = 2 * len(CATEGORIES[category].answers)
    assert score(category, count) == (count, 0)


@pytest.mark.parametrize("harm", HARMS)
def test_the_judge_is_right_on_harmed_clips(harm):
    rights = [score(category, 4, HARMS[harm])[0] for category in CATEGORIES]
    assert sum(rights) >= 4 * len(CATEGORIES) - 1 and min(rights) >= 3


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_judge_abstains_on_noise_and_on_an_empty_picture(category):
    assert score(category, 2, pure_noise) == (0, 2)
    assert score(category, 2, lambda clip, random: np.full_like(clip, 60)) == (0, 2)


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_judge_says_what_the_clip_shows_not_what_the_item_claims(category):
    for item, clip in other_clips(category, 6):
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
    for item, clip in list(cases("direction", 4)):
        absent = "blue" if "yellow" in item.question else "yellow"
        words = [
            absent if word in ("red", "green", "blue", "yellow", "purple", "white") else word
            for word in item.question.split()
        ]
        asked = item.__class__(**(vars(item) | {"question": " ".join(words)}))
        assert answer(clip, asked) is None


def other_clips(category, count):
    """(item, clip of the same shapes that shows another of its options)."""
    answers = CATEGORIES[category].answers
    labels = tuple(answers)
    for number in range(count):
        draws = Draws(SEED, number)
        item = item_of(scene_of(category, labels[number % len(labels)], draws), draws, str(number))
        shown = next(label for label in labels if answers[label] in item.options and answers[label] != item.answer)
        yield item, draw_clip(scene_of(category, shown, draws))


@pytest.mark.slow
def test_the_judges_full_table(capsys):
    """All that is asked of the judge, with 400 clean and 120 harmed clips of each category; prints the table."""
    clean, harmed = 400, 120
    bounds = dict.fromkeys(HARMS, (0.95, 1)) | {"noise only": (0, 0.1), "other answer": (0, 0.1)}
    header = ["category", "clean (lower bound)", *bounds, "reversed", "frozen"]
    rows, failed = [], []
    for category in CATEGORIES:
        right = score(category, clean)[0]
        low = wilson(right, clean).low
        shares = {harm: score(category, harmed, HARMS[harm])[0] / harmed for harm in HARMS}
        shares["noise only"] = score(category, harmed, pure_noise)[0] / harmed
        shares["other answer"] = np.mean(
            [answer(clip, item) == item.answer for item, clip in other_clips(category, harmed)]
        )
        in_time = [score(category, harmed, change)[0] / harmed for change in (reverse, freeze)]
        cells = [f"{right / clean:.4f} ({low:.4f})", *(f"{share:.3f}" for share in [*shares.values(), *in_time])]
        rows.append([category, *cells])
        failed += [(category, "clean", low)] * (low < 0.99)
        failed += [
            (category, name, share) for name, share in shares.items() if not bounds[name][0] <= share <= bounds[name][1]
        ]
        with capsys.disabled():
            print(
                " | ".join(header if len(rows) == 1 else []) + "\n" * (len(rows) == 1) + " | ".join(rows[-1]),
                flush=True,
            )
    assert not failed
