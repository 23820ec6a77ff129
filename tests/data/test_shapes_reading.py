"""Reading captions: what they tell, and whether it is what a scene shows."""

from collections import Counter

import pytest

from data_tools.draws import Draws
from data_tools.shapes import caption_is_right, caption_of, draw_scene
from data_tools.shapes.reading import told


@pytest.mark.parametrize("detailed", [False, True])
def test_every_true_caption_is_right_of_its_scene_and_of_few_others(detailed):
    scenes = [draw_scene(draws, "train") for draws in (Draws(3, n) for n in range(300))]
    said = [caption_of(scene, Draws(3, n), detailed) for n, scene in enumerate(scenes)]
    assert all(caption_is_right(caption, scene) for caption, scene in zip(said, scenes))
    assert sum(caption_is_right(caption, scene) for caption, scene in zip(said, scenes[1:])) < 5


@pytest.mark.parametrize(
    "caption, things, events",
    [
        ("There are three red circles.", {("red", "circle"): 3}, set()),
        ("Here a blue square is to the left of a red circle.", {("blue", "square"): 1, ("red", "circle"): 1}, set()),
        ("A small red circle moves up.", {("red", "circle"): 1}, {(("red", "circle"), "up", "")}),
        ("A red circle turns blue.", {("red", "circle"): 1}, {(("red", "circle"), "changes", "blue")}),
        ("A red circle stays as it is next to a blue square and a white square.",
         {("red", "circle"): 1, ("blue", "square"): 1, ("white", "square"): 1}, set()),
        ("A red circle moves up and a blue square moves down.", {("red", "circle"): 1, ("blue", "square"): 1},
         {(("red", "circle"), "up", ""), (("blue", "square"), "down", "")}),
        ("A red circle bounces twice.", {("red", "circle"): 1}, {(("red", "circle"), "bounce", "")}),
        ("There are two small red circles at the top far left and middle right.", {("red", "circle"): 2}, set()),
        ("A large red circle at the upper left appears next to a small blue square at the lower far right.",
         {("red", "circle"): 1, ("blue", "square"): 1}, {(("red", "circle"), "appears", "")}),
    ],
)  # fmt: skip
def test_a_caption_tells_things_and_events(caption, things, events):
    assert told(caption) == (Counter(things), frozenset(events))


@pytest.mark.parametrize("text", ["", "A red circle.", "A red circle moves.", "There are red circles."])
def test_what_is_no_caption_tells_nothing(text):
    assert told(text) is None
