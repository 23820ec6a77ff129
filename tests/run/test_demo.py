"""What the demo shows at its end: prompts, marks, pictures. test_real_clips.py runs the whole of it."""

import csv

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from data_tools.draws import Draws
from data_tools.shapes import CATEGORIES, caption_is_right, caption_of, render, scene_of
from data_tools.shapes.judge import answer
from pipelines.config import DemoConfig
from pipelines.demo.picture import (
    ACROSS,
    COLUMNS,
    GAP,
    LINE,
    MOVING,
    SIDE,
    Panel,
    animation,
    contact_sheet,
    spread,
    wrapped,
)
from pipelines.demo.result import Video, mark
from pipelines.engine.demo_clips import SPLIT, held_out_scene, pack_demo_clips, prompts_of


def test_its_held_out_clips_are_the_scenes_that_it_compares_with(tmp_path):
    pack_demo_clips(DemoConfig(clips=2), 5, tmp_path)
    with (tmp_path / "data/held_out/captions.csv").open(newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    assert {held_out_scene(5, number)[0].category for number in range(len(captions))} == set(CATEGORIES)
    assert any("," in caption for caption in captions)
    for number, caption in enumerate(captions):
        scene, told = held_out_scene(5, number)
        assert caption == told == caption_of(scene, Draws(6, number)) and caption_is_right(caption, scene)
        assert not caption_is_right("There are five white squares.", scene)


def test_prompts_have_questions_that_their_true_clips_answer():
    """Another seed asks for other scenes, of the same categories."""
    demo = DemoConfig(prompts=["direction", "relative_position", "counting"])
    items = prompts_of(demo, 3)
    assert [item.category for item in items] == demo.prompts
    assert [item.prompt for item in items] != [item.prompt for item in prompts_of(demo, 4)]
    for number, item in enumerate(items):
        label = next(label for label, said in CATEGORIES[item.category].answers.items() if said == item.answer)
        scene = scene_of(item.category, label, Draws(3 + 2, number), SPLIT)
        assert answer(np.stack(list(render(scene, 9, 64))), item) == item.answer


def test_a_video_is_right_if_the_judge_answers_as_the_prompt_says():
    (item,) = prompts_of(DemoConfig(prompts=["colour"]), 0)
    frames = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    wrong = next(option for option in item.options if option != item.answer)
    assert [mark(Video(frames, item, said).right) for said in (item.answer, wrong, None)] == ["✓", "✗", "✗"]


def panel(value, count, text="a blue square moves to the right", sign="✓"):
    return Panel(torch.full((count, 3, 8, 8), value, dtype=torch.uint8), text, sign)


def test_the_sheet_shows_every_clip_in_its_row():
    sheet = contact_sheet([panel(40, 24), panel(200, 3, sign="✗")])
    row = 2 * LINE + SIDE + 2 * GAP
    assert sheet.size == (COLUMNS * (SIDE + GAP) + GAP, 2 * row)
    middles = [[sheet.getpixel((GAP + column * (SIDE + GAP) + SIDE // 2, number * row + 2 * LINE + SIDE // 2))
                for column in range(COLUMNS)] for number in range(2)]  # fmt: skip
    assert middles[0] == [(40,) * 3] * COLUMNS
    assert middles[1] == [(200,) * 3] * 3 + [(255,) * 3] * (COLUMNS - 3)


def test_the_animation_runs_through_all_clips_at_once():
    """A clip of more frames shows as many as the shortest one."""
    rising = torch.arange(24, dtype=torch.uint8).mul(10).view(24, 1, 1, 1).expand(24, 3, 8, 8)
    frames, fps = animation([Panel(rising, "rises", "✓"), panel(100, 9)], 3.0)
    assert fps == 3 and frames.shape == (9, 3, MOVING + 6 * LINE + GAP, ACROSS * (MOVING + GAP) + GAP)
    middles = frames[:, 0, GAP + MOVING // 2, GAP + MOVING // 2].tolist()
    assert middles == spread(rising, 9)[:, 0, 0, 0].tolist() and middles[0] == 0 and middles[-1] == 230


def test_a_long_text_is_broken_between_words():
    draw, font = ImageDraw.Draw(Image.new("RGB", (9, 9))), ImageFont.load_default(12)
    text = "asked: A small yellow triangle travels up and to the left. [wrong]"
    lines = wrapped(text, draw, font, 120).split("\n")
    assert len(lines) > 2 and " ".join(lines) == text and all(draw.textlength(line, font) <= 120 for line in lines)
