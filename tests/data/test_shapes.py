"""The shapes world: the pixels do what the caption says, and nothing but watching tells it."""

import re
from collections import Counter

import av
import numpy as np
import pytest

from data_tools.cli import main
from data_tools.draws import Draws
from data_tools.errors import DataError
from data_tools.items import Item, read_items, write_items
from data_tools.shapes import (
    CATEGORIES,
    COLOURS,
    SHAPES,
    TV_ALIGN,
    Scene,
    Thing,
    caption_of,
    cut_item,
    draw_cut_scene,
    draw_scene,
    item_of,
    render,
    render_clips,
    render_cut,
    scene_items,
    scene_of,
)
from data_tools.shapes.paths import DIRECTIONS
from data_tools.shapes.scene import held_out
from data_tools.shapes.words import SOON, place_of, size_of
from pipelines.evaluation.accuracy import wilson

DRAWS = [Draws(1, number) for number in range(len(CATEGORIES) * 48)]
SCENES = [draw_scene(draws) for draws in DRAWS]
IN_TIME = ("direction", "state", "motion", "bounce_count", "two_movers")


def of(category, count=8):
    return [scene for scene in SCENES if scene.category == category][:count]


def centres(scene, frames=9, size=64):
    """The centre of the thing asked about in each frame, from the pixels of its colour: (frames, 2) in shares."""
    clip = render(scene, frames, size).astype(np.float32)
    shape = np.abs(clip - np.float32(COLOURS[scene.things[0].colour])).sum(axis=-1) < 30
    return np.array([(np.argwhere(mask).mean(axis=0)[::-1] + 0.5) / size for mask in shape])


def test_shapes_move_as_labelled():
    for scene in of("direction", 24) + of("two_movers", 24):
        found = centres(scene)
        way = (found[-1] - found[0]) / np.linalg.norm(found[-1] - found[0])
        assert way @ DIRECTIONS[scene.label] > 0.98


def test_a_ball_touches_the_ground_as_often_as_labelled():
    for scene in of("bounce_count", 16):
        height = scene.things[0].centres(np.linspace(0, 1, 2000))[:, 1]
        lowest = (height[1:-1] > height[:-2]) & (height[1:-1] >= height[2:])
        assert lowest.sum() == int(scene.label)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_shape_stays_whole_and_apart_from_the_others(category):
    for scene in of(category, 16):
        clip = render(scene, 24, 64).astype(int)
        for thing in scene.things:
            seen = np.abs(clip - COLOURS[thing.colour]).sum(axis=-1) < 30
            assert not (seen[:, [0, -1]].any() or seen[:, :, [0, -1]].any())
        t = np.linspace(0, 1, 24)
        for number, one in enumerate(scene.things):
            for other in scene.things[:number]:
                gap = np.linalg.norm(one.centres(t) - other.centres(t), axis=1)
                assert (gap > (one.sides(t) + other.sides(t)) / np.pi**0.5).all()


def test_shapes_of_one_side_have_one_area():
    black = ((0.0,) * 3,) * 2
    areas = []
    for shape in SHAPES:
        clip = render(Scene("", "", (Thing(shape, "white", 0.3, (0.5, 0.5)),), "", black, 0.0), 1, 64)
        areas.append(clip.sum() / sum(COLOURS["white"]))
    assert areas == pytest.approx([(0.3 * 64) ** 2] * 3, rel=0.01)


def test_categories_and_labels_are_stratified():
    assert set(Counter(scene.category for scene in SCENES).values()) == {48}
    for category in CATEGORIES:
        counts = Counter(scene.label for scene in SCENES if scene.category == category).values()
        assert max(counts) - min(counts) <= 1 and len(counts) == len(CATEGORIES[category].answers)


@pytest.mark.parametrize("category", CATEGORIES)
def test_held_out_combinations_are_seen_only_in_the_test_split(category):
    for number in range(24):
        for label in CATEGORIES[category].answers:
            for split in ("train", "test"):
                one = scene_of(category, label, Draws(2, number), split).things[0]
                assert held_out(category, label, one.colour, one.shape) == (split == "test")


def test_the_splits_share_every_colour_shape_and_label():
    for split in ("train", "test"):
        seen = [draw_scene(Draws(3, number), split) for number in range(600)]
        looks = {(scene.things[0].colour, scene.things[0].shape) for scene in seen}
        assert len(looks) == len(COLOURS) * len(SHAPES)


# What one frame tells.


def pictures(category, numbers, t=0):
    """The frame at time t in 0..1 of many scenes, averaged to 8×8, and their labels' numbers."""
    labels = list(CATEGORIES[category].answers)
    frames, truths = [], []
    for number in numbers:
        truth = number % len(labels)
        clip = render(scene_of(category, labels[truth], Draws(4, number)), 2 if t else 1, 32)
        frames.append(clip[-1].reshape(8, 4, 8, 4, 3).mean(axis=(1, 3)).ravel() / 128)
        truths.append(truth)
    return np.array(frames), np.array(truths)


def logistic(seen, truths, asked, steps=100, rate=0.03):
    """Multinomial logistic regression by gradient descent."""
    mean = seen.mean(axis=0)
    seen, asked = seen - mean, asked - mean
    wanted = np.eye(truths.max() + 1)[truths]
    weights, bias = np.zeros((seen.shape[1], wanted.shape[1])), np.zeros(wanted.shape[1])
    for _ in range(steps):
        scores = seen @ weights + bias
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        error = odds / odds.sum(axis=1, keepdims=True) - wanted
        weights -= rate * (seen.T @ error / len(seen) + 1e-3 * weights)
        bias -= rate * error.mean(axis=0)
    return (asked @ weights + bias).argmax(axis=1)


def nearest(seen, truths, asked):
    """The label of the most similar picture."""
    return truths[((asked**2).sum(axis=1)[:, None] - 2 * asked @ seen.T + (seen**2).sum(axis=1)).argmin(axis=1)]


PROBED = 600


@pytest.mark.parametrize("category", IN_TIME)
def test_the_first_frame_does_not_tell_what_happens_in_time(category):
    seen, truths = pictures(category, range(PROBED))
    asked, answers = pictures(category, range(PROBED, 2 * PROBED))
    chance = 1 / len(CATEGORIES[category].answers)
    for probe in (logistic, nearest):
        right = (probe(seen, truths, asked) == answers).sum()
        assert chance in wilson(right, PROBED)


def test_the_probes_find_what_a_frame_does_tell():
    """Else it would mean nothing that they stay at chance. The last frame hints at the way that a shape came."""
    for category, t in (("direction", 1), ("counting", 0)):
        seen, truths = pictures(category, range(PROBED), t)
        asked, answers = pictures(category, range(PROBED, PROBED + 300), t)
        chance = 1 / len(CATEGORIES[category].answers)
        rights = [(probe(seen, truths, asked) == answers).sum() for probe in (logistic, nearest)]
        assert wilson(max(rights), 300).low > 1.2 * chance


# What is said.


def test_captions_say_the_label_in_several_ways():
    for scene, draws in zip(SCENES, DRAWS):
        caption, phrase = caption_of(scene, draws), CATEGORIES[scene.category].phrases[scene.label]
        assert phrase in caption and caption[0].isupper() and caption.endswith(".")
        assert all(thing.colour in caption and thing.shape in caption for thing in scene.things)
    for category in CATEGORIES:
        assert len({caption_of(of(category, 1)[0], Draws(1, number)) for number in range(40)}) >= 4


def test_detailed_captions_also_tell_the_size_and_a_place_of_its_own_of_each_thing():
    for scene, draws in zip(SCENES, DRAWS):
        caption = caption_of(scene, draws, detailed=True)
        places = [place_of(*thing.start) for thing in scene.things]
        assert len(set(places)) == len(places) and all(place in caption for place in places)
        assert all(f"{size_of(thing)} {thing.colour} {thing.shape}" in caption for thing in scene.things)


def test_detailed_captions_tell_the_first_way_of_what_turns():
    ways = Counter()
    for number in range(200):
        draws = Draws(1, number)
        scene = scene_of("motion", "vertical", draws)
        caption = caption_of(scene, draws, detailed=True)
        [way] = re.findall(r"moves up and down, first (up|down)\.", caption)
        y = scene.things[0].centres(np.array([0.0, SOON]))[:, 1]
        ways[way, y[1] < y[0]] += 1
    assert (
        sum(ways[way, way == "up"] for way in ("up", "down")) > 195 and min(ways["up", True], ways["down", False]) > 60
    )
    still = scene_of("motion", "still", Draws(1, 1))
    assert "first" not in caption_of(still, Draws(1, 1), detailed=True)


def test_names_of_places_follow_the_coordinates():
    assert [place_of(x, 0.5) for x in (0.2, 0.4, 0.5, 0.6, 0.8)] == [
        "middle far left", "middle left", "middle centre", "middle right", "middle far right",
    ]  # fmt: skip
    assert [place_of(0.5, y) for y in (0.2, 0.4, 0.6, 0.8)] == [
        "top centre", "upper centre", "lower centre", "bottom centre",
    ]  # fmt: skip


def test_questions_hold_the_true_answer_in_every_place():
    places = Counter()
    for scene, draws in zip(SCENES, DRAWS):
        item = item_of(scene, draws, "x")
        assert item.answer == CATEGORIES[scene.category].answers[scene.label] and len(set(item.options)) == len(
            item.options
        )
        if scene.other_label:
            assert CATEGORIES[scene.category].answers[scene.other_label] in item.options
        places[item.options.index(item.answer)] += len(item.options) == 4
    assert min(places[place] for place in range(4)) > 0.2 * sum(places.values())


def test_items_of_the_seven_categories_are_the_same_each_time():
    items = scene_items(4, seed=0)
    assert items == scene_items(4, seed=0) != scene_items(4, seed=1)
    assert Counter(item.category for item in items) == dict.fromkeys(TV_ALIGN, 4)


def test_items_may_hold_what_other_programs_take_for_a_line_s_end(tmp_path):
    """U+2028, U+0085 and the like once cut an item in two, and the file that was just written was refused."""
    item = Item("a", "counting", "One\u2028two\x85three\x0bfour\r\nfive", "How\u2029many?", ("1\x1c", "2"), "2")
    write_items([item], tmp_path / "items.jsonl")
    assert read_items(tmp_path / "items.jsonl") == [item]


def test_the_commands_write_items_and_clips_of_a_split(tmp_path, capsys):
    assert main(["shapes-items", "--output", str(tmp_path / "a" / "items.jsonl"), "--per-category", "2"]) == 0
    assert read_items(tmp_path / "a" / "items.jsonl") == scene_items(2, seed=0)
    assert main(["shapes-items", "--output", str(tmp_path / "b"), "--per-category", "0"]) == 2
    assert "must be at least 1" in capsys.readouterr().err and not (tmp_path / "b").exists()
    assert main(["shapes", "--output", str(tmp_path / "c"), "--clips", "9", "--split", "test"]) == 0
    told = [item.prompt for item in read_items(tmp_path / "c" / "items.jsonl")]
    draws = [Draws(0, number) for number in range(9)]
    assert told == [caption_of(draw_scene(one, "test"), one) for one in draws]
    assert told != [caption_of(draw_scene(one), one) for one in draws]


# Clips on disk.


def test_clips_are_written_whole_and_alike(tmp_path):
    for name in ("first", "again"):
        render_clips(tmp_path / name, 4, seed=7, frames=12, fps=6, size=48)
    render_clips(tmp_path / "other", 4, seed=8, frames=12, fps=6, size=48)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        assert path.read_bytes() != (tmp_path / "other" / path.name).read_bytes()
    with av.open(str(tmp_path / "first" / "003.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 6
    assert np.shape(frames) == (12, 48, 48, 3)
    drawn = render(draw_scene(Draws(7, 3)), 12, 48)
    assert np.abs(np.array(frames, int) - drawn).mean() < 6
    assert [item.id for item in read_items(tmp_path / "first" / "items.jsonl")] == ["000", "001", "002", "003"]


def test_a_folder_in_use_no_clips_and_no_such_split_are_refused(tmp_path):
    render_clips(tmp_path, 1, seed=0)
    with pytest.raises(DataError, match="already holds clips"):
        render_clips(tmp_path, 1, seed=0)
    with pytest.raises(DataError, match="at least 1"):
        render_clips(tmp_path / "none", 0, seed=0)
    with pytest.raises(DataError, match="must be one of all, train, test"):
        render_clips(tmp_path / "none", 1, seed=0, split="tset")
    assert not (tmp_path / "none").exists()


def test_a_cut_shows_one_scene_and_then_the_other():
    for number in range(12):
        draws = Draws(5, number)
        cut = draw_cut_scene(draws, "train")
        clip = render_cut(cut, 13, 64)
        first = round(cut.where * 13)
        assert clip.shape == (13, 64, 64, 3) and 5 <= first <= 8
        assert np.array_equal(clip[:first], render(cut.scenes[0], first, 64))
        assert np.array_equal(clip[first:], render(cut.scenes[1], 13 - first, 64))
    assert len(render_cut(cut, 2, 64)) == 2


def test_a_question_about_a_cut_is_that_about_its_scene():
    sides = set()
    for number in range(24):
        draws = Draws(5, number)
        cut = draw_cut_scene(draws)
        item = cut_item(cut, draws, "x")
        side = ("before_cut", "after_cut").index(item.category)
        own = item_of(cut.scenes[side], cut.draws[side], "x")
        assert (item.options, item.answer) == (own.options, own.answer) and item == cut_item(cut, draws, "x")
        said = ("Before the cut, ", "After the cut, ")[side]
        assert item.question.startswith(said) and item.question.endswith(own.question[1:])
        assert item.prompt.startswith(caption_of(cut.scenes[0], cut.draws[0]))
        sides.add(item.category)
    assert sides == {"before_cut", "after_cut"}
