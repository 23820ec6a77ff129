"""The judge qwen2.5-vl: replies are parsed strictly, inputs have the model's form, and it loads from a folder."""

import json

import numpy as np
import pytest
import torch

from data_tools.draws import Draws
from data_tools.items import Item, read_items, write_items
from data_tools.shapes import render, scene_of
from data_tools.video.encode import encode_mp4
from pipelines import evaluate
from pipelines.cli.config_files import PRESETS
from pipelines.evaluation import tv_align
from pipelines.evaluation.judges.qwen import QwenJudge, QwenJudgeConfig
from pipelines.evaluation.options import listed, parse_option
from vtok.assembly.tiny import write_tiny_models
from vtok.config import ConfigError

OPTIONS = ("To the left.", "Up.", "To the right.")
ITEM = Item("natural-0", "direction", "A dog runs to the left.", "Where does the dog run?", OPTIONS, OPTIONS[0])


@pytest.mark.parametrize(
    "reply, option",
    [
        ("A", 0), ("(B)", 1), ("C.", 2), ("B:", 1), (" (A) \n", 0), ("A) To the left.", 0), ("(C) to the right", 2),
        ("B. Up.", 1), ("up", 1), ("To the right.", 2),
    ],
)  # fmt: skip
def test_replies_that_name_one_option(reply, option):
    assert parse_option(reply, OPTIONS) == OPTIONS[option]


@pytest.mark.parametrize(
    "reply", ["", "D", "A or B", "A, B", "(A) Up.", "I think it is A.", "The answer is (B)", "a", "AB", "left", "A B"]
)
def test_other_replies_are_no_answer(reply):
    assert parse_option(reply, OPTIONS) is None


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    write_tiny_models(folder, [ITEM.question, listed(OPTIONS)], mllm="qwen2.5-vl")
    return folder / "qwen"


def settings(qwen, **changes):
    return QwenJudgeConfig(**dict(weights=str(qwen), frames=4, min_pixels=784, max_pixels=56 * 56) | changes)


def clip():
    """A clip of a shape that moves to the right, (24, 64, 64, 3), and the times of its frames."""
    return render(scene_of("direction", "right", Draws(0, 0)), 24, 64), [frame / 8 for frame in range(24)]


def test_what_the_model_is_asked(qwen):
    """There is a video token for each merged patch, the prompt has the options, and the seconds are right."""
    judge = QwenJudge(settings(qwen))
    inputs = judge.inputs(*clip(), ITEM)
    assert inputs["video_grid_thw"].tolist() == [[2, 4, 4]]
    is_video = inputs["input_ids"] == judge.model.config.video_token_id
    assert is_video.sum() == 2 * 2 * 2 and torch.equal(inputs["mm_token_type_ids"], is_video * 2)
    said = judge.tokenizer.decode(inputs["input_ids"][0, ~is_video[0]])
    assert ITEM.question in said and "(A) To the left.\n(B) Up.\n(C) To the right." in said
    assert inputs["second_per_grid_ts"].item() == pytest.approx(2 * (23 / 8) / 3)


@torch.no_grad()
def test_the_model_sees_the_video_and_its_order(qwen):
    judge = QwenJudge(settings(qwen))
    frames, times = clip()
    black, backwards = np.zeros_like(frames), frames[::-1].copy()
    logits = [judge.model(**judge.inputs(each, times, ITEM)).logits[0, -1] for each in (frames, black, backwards)]
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)
    assert not torch.allclose(logits[0], logits[2], atol=1e-6)


def test_an_answer_is_the_option_the_reply_names(qwen, monkeypatch):
    judge = QwenJudge(settings(qwen))
    assert isinstance(judge.reply(*clip(), ITEM), str) and judge.reply(*clip(), ITEM) == judge.reply(*clip(), ITEM)
    for reply, expected in (("(B)", "Up."), ("B or C", None)):
        monkeypatch.setattr(judge, "reply", lambda *_, reply=reply: reply)
        assert judge.answer(*clip(), ITEM) == expected


def test_tv_align_with_the_judge_from_a_folder(qwen, tmp_path, capsys):
    """A random model's reply that names no option is an abstention; it counts as wrong and is reported."""
    (tmp_path / "judge.yaml").write_text(f"weights: {qwen}\nframes: 2\nmin_pixels: 784\nmax_pixels: 3136\n")
    items = read_items(tv_align.FOLDER / "natural.jsonl")[:2]
    write_items(items, tmp_path / "items.jsonl")
    for item in items:
        (tmp_path / f"{item.id}.mp4").write_bytes(encode_mp4(clip()[0], 8, 18))
    arguments = ["tv-align", "--videos", tmp_path, "--items", tmp_path / "items.jsonl", "--output", tmp_path / "out",
                 "--judge", "qwen2.5-vl", "--judge_config", tmp_path / "judge.yaml"]  # fmt: skip
    evaluate.main(list(map(str, arguments)))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"]["judge_settings"]["weights"] == str(qwen)
    line = report["tables"]["judge"][-1]
    assert line["asked"] == 2 and line["right"] + line["abstained"] <= 2 and line["interval"]["high"] < 1.01
    stored = {item.id: json.loads((tmp_path / "out" / "answers" / f"{item.id}.json").read_text()) for item in items}
    assert line["abstained"] == sum(stored[item.id]["said"][item.id] is None for item in items)


def test_settings_of_the_judge(tmp_path):
    assert QwenJudgeConfig.from_yaml(PRESETS / "qwen2.5-vl_judge.yaml").frames == 16
    for text, message in (
        ("frame: 3", "unexpected keyword argument 'frame'"),
        ("prompt: What?", "prompt needs"),
        ("frames: 0", "at least 1"),
        ("max_pixels: 3", "min_pixels"),
    ):
        (tmp_path / "judge.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            QwenJudgeConfig.from_yaml(tmp_path / "judge.yaml")
    with pytest.raises(ConfigError, match="cannot load the judge"):
        QwenJudge(QwenJudgeConfig(weights=str(tmp_path / "nowhere")))
