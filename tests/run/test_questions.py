"""``evaluate.py understanding``: the likeliest option, the accuracy, several ranks, resuming."""

import json

import pytest
import torch

from data_tools.draws import Draws
from data_tools.items import write_items
from data_tools.shapes import item_of, render, scene_of
from data_tools.video.encode import encode_mp4
from pipelines import evaluate
from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from pipelines.evaluation import questions
from support.tiny import make_batch, model_config
from vtok.assembly.build import build_framework
from vtok.rows.prompts import CAPTION_INSTRUCTIONS
from vtok.understanding import answer_losses, video_embeddings


@torch.no_grad()
def test_losses_of_answers_are_those_of_training(framework):
    """Packed answers have the same loss as L_under gives each of them alone."""
    framework.eval()
    answers = ["To the left.", "Up.", "A green square that stays where it is."]
    batch = make_batch(framework, 1, ["x"], [9])
    losses = answer_losses(framework, video_embeddings(framework, batch.frames[0]), 9, "Which way?", answers)
    for answer, loss in zip(answers, losses):
        row = framework.text.sample("x", "Which way?", answer, 0)
        expected = framework(batch._replace(texts=[row]), with_decoder=False)["loss_under"]
        torch.testing.assert_close(loss.mean(), expected, atol=1e-5, rtol=1e-5)
        assert len(loss) == len(row.answer)


@pytest.fixture
def clips(tmp_path, tiny_models, monkeypatch):
    """Six clips with their items, and a tiny model."""
    items = []
    for number, category in enumerate(["direction", "motion", "counting"] * 2):
        scene = scene_of(category, {"direction": "up", "motion": "circle", "counting": "3"}[category], Draws(3, number))
        items.append(item_of(scene, Draws(3, number), f"{number:03d}"))
        (tmp_path / f"{number:03d}.mp4").write_bytes(encode_mp4(render(scene, 16, 64), 8, 18))
    write_items(items, tmp_path / "items.jsonl")
    config = parse_run_arguments(["--config", str(PRESETS / "tiny.yaml")]).config
    config.model = model_config(tiny_models)
    torch.manual_seed(0)
    framework, loads = build_framework(config.model).eval(), []
    monkeypatch.setattr(questions, "load_run", lambda folder, ema: loads.append(folder) or (config, framework, 5))
    return tmp_path, items, framework, loads


def command(folder, output):
    return ["understanding", "--checkpoint", "run", "--items", str(folder / "items.jsonl"), "--videos", str(folder),
            "--output", str(output)]  # fmt: skip


def test_accuracy_by_category_over_ranks_and_resumed(clips, tmp_path, monkeypatch, capsys):
    folder, items, framework, loads = clips

    def losses(_, frames, num_frames, question, answers):
        """Answers everything right except motion. For a repeated first frame it takes the first option."""
        frozen = bool((frames == frames[:1]).all())
        known = {item.answer for item in items if item.question == question and item.category != "motion"}
        if question == CAPTION_INSTRUCTIONS[0]:
            return [torch.tensor([1.0, 3.0])]
        return [
            torch.tensor([0.0 if (not frozen and answer in known) else 1.0 + k]) for k, answer in enumerate(answers)
        ]

    monkeypatch.setattr(questions, "video_embeddings", lambda _, frames, key_frame_every: frames)
    monkeypatch.setattr(questions, "answer_losses", losses)
    output = tmp_path / "results"
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        evaluate.main(command(folder, output))
        out = capsys.readouterr().out
        assert ("3 of 6 answers are still to come" in out) == (rank == 1)
    report = json.loads((output / "report.json").read_text())
    lines = {line["name"]: line for line in report["lines"]}
    assert list(lines) == ["direction", "motion", "counting", "all"]
    assert lines["direction"]["right"] == lines["counting"]["right"] == 2
    first = sum(item.options[0] == item.answer for item in items)
    assert lines["all"]["controls"]["frozen"] == pytest.approx(first / 6)
    assert lines["all"]["right"] == 4 + sum(i.options[0] == i.answer for i in items if i.category == "motion")
    assert report["caption_cross_entropy"] == 2.0 and "captions: 2.0000 nats" in out
    assert report["lines"][-1]["interval"]["low"] < lines["all"]["right"] / 6 < report["lines"][-1]["interval"]["high"]

    count = len(loads)
    evaluate.main(command(folder, output))  # all answers are stored, so no model is loaded
    assert len(loads) == count


def test_a_real_model_answers_with_one_of_the_options(clips, tmp_path, capsys):
    folder, items, _, _ = clips
    evaluate.main(command(folder, tmp_path / "results"))
    for item in items:
        stored = json.loads((tmp_path / "results" / "answers" / f"{item.id}.json").read_text())
        assert {stored["said"], stored["frozen"]} <= set(item.options) and stored["caption_loss"] > 0
        assert stored["step"] == 5


def test_a_missing_video_is_refused_before_anything_is_asked(clips, tmp_path, capsys):
    folder, _, _, loads = clips
    (folder / "003.mp4").unlink()
    with pytest.raises(SystemExit) as end:
        evaluate.main(command(folder, tmp_path / "results"))
    error = capsys.readouterr().err
    assert end.value.code == 2 and "lacks 1 of 6 videos, the first is 003.mp4" in error and error.count("\n") == 1
    assert not loads and not (tmp_path / "results").exists()
