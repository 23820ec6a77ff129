"""The judge's whole table: clean clips, harmed ones, noise, clips of another answer. Minutes for each category.

PYTHONPATH=.:tests python tests/data/judge_table.py [--clean 400] [--others 120] [CATEGORY ...]
"""

import argparse
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from data_tools.draws import Draws
from data_tools.items import Item
from data_tools.shapes import CATEGORIES, item_of, scene_of
from data_tools.shapes.judge import answer
from pipelines.evaluation.accuracy import wilson
from support.shapes_drawn import HARMS, draw_clip

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
SEED = 20


def cases(category: str, count: int) -> Iterator[tuple[Item, np.ndarray]]:
    """(item, clip drawn by Pillow), the labels in turn."""
    return (drawn(category, number) for number in range(count))


@cache
def drawn(category: str, number: int) -> tuple[Item, np.ndarray]:
    labels, draws = tuple(CATEGORIES[category].answers), Draws(SEED, number)
    scene = scene_of(category, labels[number % len(labels)], draws)
    return item_of(scene, draws, str(number)), draw_clip(scene)


def score(category: str, count: int, change: Change = lambda clip, random: clip) -> tuple[int, int]:
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


def other_clips(category: str, count: int) -> Iterator[tuple[Item, np.ndarray]]:
    """(item, clip of the same shapes that shows another of its options)."""
    answers = CATEGORIES[category].answers
    labels = tuple(answers)
    for number in range(count):
        draws = Draws(SEED, number)
        item = item_of(scene_of(category, labels[number % len(labels)], draws), draws, str(number))
        shown = next(label for label in labels if answers[label] in item.options and answers[label] != item.answer)
        yield item, draw_clip(scene_of(category, shown, draws))


def row_of(category: str, clean: int, others: int) -> dict[str, float]:
    """One row of the table.

    Args:
        clean: how many clips as they were drawn.
        others: how many of each other kind.

    Returns:
        ``clean``, ``lower bound`` of the share that is right in all such clips (Wilson, 95 %), and for each other kind
        the share of answers that are the item's.
    """
    right = score(category, clean)[0]
    row = {"clean": right / clean, "lower bound": wilson(right, clean).low}
    row |= {name: score(category, others, change)[0] / others for name, change in KINDS.items()}
    said = [answer(clip, item) == item.answer for item, clip in other_clips(category, others)]
    return row | {"other answer": sum(said) / others}


def check(row: dict[str, float]) -> None:
    """Right on every clean clip and on 19 of 20 harmed ones; the item's answer is hardly ever given without cause."""
    assert row["clean"] == 1, row
    assert min(row[name] for name in HARMS) >= 0.95, row
    assert max(row["noise only"], row["other answer"]) <= 0.1, row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("categories", nargs="*", default=list(CATEGORIES), metavar="CATEGORY")
    parser.add_argument("--clean", type=int, default=400)
    parser.add_argument("--others", type=int, default=120)
    arguments = parser.parse_args()
    for category in arguments.categories:
        row = row_of(category, arguments.clean, arguments.others)
        print(f"{category}: " + ", ".join(f"{name} {share:.3f}" for name, share in row.items()), flush=True)
        check(row)


if __name__ == "__main__":
    main()
