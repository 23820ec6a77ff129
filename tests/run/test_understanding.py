"""``evaluate.py understanding``: likelihoods and letters, the controls, several questions a video, ranks, resuming."""

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
from pipelines.evaluation.understanding import asking, run
from pipelines.evaluation.understanding.asking import BLIND, FIRST_FRAME, VIDEO, likeliest, said, sights
from pipelines.evaluation.understanding.question import Question, asked_text
from pipelines.inference.understand import Look, Understanding, thinned
from support.tiny import make_batch, model_config
from vtok.assembly.build import build_framework
from vtok.understanding import answer_losses, understand, video_embeddings


@torch.no_grad()
def test_losses_of_answers_are_those_of_training(framework):
    """Packed answers have the same loss as L_under gives each of them alone."""
    framework.eval()
    answers = ["To the left.", "Up.", "A green square that stays where it is."]
    batch = make_batch(framework, 1, ["x"], [9])
    losses = answer_losses(framework, video_embeddings(framework, batch.frames[0]), [9], "Which way?", answers)
    for answer, loss in zip(answers, losses):
        row = framework.text.sample("x", "Which way?", answer, 0)
        expected = framework(batch._replace(texts=[row]), with_decoder=False)["loss_under"]
        torch.testing.assert_close(loss.mean(), expected, atol=1e-5, rtol=1e-5)
        assert len(loss) == len(row.answer)


@torch.no_grad()
def test_controls_see_the_first_frame_alone_or_nothing(framework):
    framework.eval()
    frames = make_batch(framework, 1, ["x"], [9]).frames[0]
    seen = sights(framework, frames, None)
    torch.testing.assert_close(seen[FIRST_FRAME].visual, video_embeddings(framework, frames[:1].expand_as(frames)))
    assert not torch.allclose(seen[FIRST_FRAME].visual, seen[VIDEO].visual, atol=1e-4)
    assert seen[BLIND].visual.shape[1] == 0 and seen[BLIND].frame_counts == []
    other = sights(framework, 255 - frames, None)
    question = Question("a", "x", None, "Which?", ("Red.", "Blue."), "A")
    blind, again = (said(framework, each[BLIND], question, [], True) for each in (seen, other))
    sighted, differently = (said(framework, each[VIDEO], question, [], True) for each in (seen, other))
    assert blind == again and sighted["nats"] != differently["nats"]
    assert sighted["reply"] == understand(framework, frames, asked_text(question, [], True), asking.REPLY_TOKENS)
    assert len(seen[VIDEO].frame_counts) == 1 and len(sights(framework, frames, 1.0)[VIDEO].frame_counts) > 1


def test_short_options_do_not_win_by_their_length():
    assert likeliest({"nats": [3.0, 4.0], "tokens": [1, 4], "reply": None}) == "B"
    assert likeliest({"nats": [3.0, 13.0], "tokens": [1, 4], "reply": None}) == "A"


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
    monkeypatch.setattr(run, "load_run", lambda folder, ema: loads.append(folder) or (config, framework, 5))
    return tmp_path, items, (config, framework, 5), loads


def command(folder, output, *more):
    return ["understanding", "--checkpoint", "run", "--items", str(folder / "items.jsonl"), "--videos", str(folder),
            "--output", str(output), *more]  # fmt: skip


def scripted(items):
    """A model that answers right except about motion. Without the video it takes the first option or says nonsense."""
    known = {item.question: item for item in items}

    def say(_, sight, question, subtitles, show_options):
        item, sees = known[question.question], sight == VIDEO
        right = item.options.index(item.answer)
        place = right if sees and item.category != "motion" else 0
        reply = f"({'ABCD'[place]})" if sees else "I see nothing."
        return {"nats": [0.0 if k == place else 4.0 for k in range(len(item.options))],
                "tokens": [2] * len(item.options), "reply": reply if show_options else None}  # fmt: skip

    return say


def test_accuracy_by_category_over_ranks_and_resumed(clips, tmp_path, monkeypatch, capsys):
    folder, items, _, loads = clips
    embedded = []

    class Visual:
        shape = (1, 20, 64)

    def seen(framework, frames, every):
        embedded.append(len(frames))
        return {
            VIDEO: asking.Sight(Visual(), [16]),
            FIRST_FRAME: asking.Sight(None, [16]),
            BLIND: asking.Sight(None, []),
        }

    say = scripted(items)
    monkeypatch.setattr(run, "sights", seen)
    monkeypatch.setattr(run, "said", lambda f, sight, *more: say(f, VIDEO if sight.visual else BLIND, *more))
    lines = (folder / "items.jsonl").read_text().splitlines()
    second = json.loads(lines[0]) | {"id": "x", "category": "again", "video": "000.mp4"}
    (folder / "items.jsonl").write_text("\n".join([*lines, json.dumps(second)]))
    output = tmp_path / "results"
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        evaluate.main(command(folder, output))
        out = capsys.readouterr().out
        assert ("3 of 6 answers are still to come" in out) == (rank == 1)
    assert len(embedded) == 6  # two questions are about one video
    report = json.loads((output / "report.json").read_text())
    for scorer in ("likelihood", "letter"):
        table = {line["name"]: line for line in report["tables"][scorer]}
        assert list(table) == ["direction", "motion", "counting", "again", "all"]
        assert table["direction"]["right"] == table["counting"]["right"] == 2 and table["again"]["right"] == 1
        assert table["all"]["right"] == 5 + sum(i.options[0] == i.answer for i in items if i.category == "motion")
        assert table["all"]["controls"]["majority"] >= 4 / 7 and table["all"]["abstained"] == 0  # of the letters
    first = sum(item.options[0] == item.answer for item in [*items, items[0]])
    assert report["tables"]["likelihood"][-1]["controls"]["blind"] == pytest.approx(first / 7)
    assert report["tables"]["letter"][-1]["controls"]["blind"] == 0  # nonsense names no letter
    assert report["items"][0]["said"]["blind letter"] is None and report["items"][6]["video"] == str(folder / "000.mp4")
    assert "likelihood" in out and "first_frame" in out

    count = len(loads)
    evaluate.main(command(folder, output))  # all answers are stored, so no model is loaded
    assert len(loads) == count
    with pytest.raises(SystemExit):
        evaluate.main(command(folder, output, "--max_frames", "8"))
    assert "holds answers of another evaluation" in capsys.readouterr().err


def test_a_real_model_answers_with_letters_of_options(clips, tmp_path, capsys):
    folder, items, _, _ = clips
    evaluate.main(command(folder, tmp_path / "results"))
    report = json.loads((tmp_path / "results" / "report.json").read_text())
    for item, result in zip(items, report["items"]):
        assert {result["said"][f"{control}likelihood"] for control in ("", "first_frame ", "blind ")} <= set("ABCD")
        assert result["said"]["letter"] in (None, *"ABCD") and result["options"] == list(item.options)
        assert item.options["ABCD".index(result["answer"])] == item.answer
    assert report["settings"]["step"] == 5

    evaluate.main(command(folder, tmp_path / "open", "--hide_options"))
    report = json.loads((tmp_path / "open" / "report.json").read_text())
    assert list(report["tables"]) == ["likelihood"] and "letter" not in report["items"][0]["said"]


def test_a_configuration_is_asked_untrained(clips, tmp_path, monkeypatch, capsys):
    folder, _, (config, framework, _), loads = clips
    monkeypatch.setattr(
        run, "load_untrained", lambda path, drawn: loads.append((path.name, drawn)) or (config, framework, 0)
    )
    arguments = command(folder, tmp_path / "results")
    arguments[1:3] = ["--config", "published.yaml"]
    evaluate.main(arguments)
    settings = json.loads((tmp_path / "results" / "report.json").read_text())["settings"]
    assert settings["config"].endswith("published.yaml") and settings["step"] == 0
    assert loads == [("published.yaml", True)]
    with pytest.raises(SystemExit):
        evaluate.main([*arguments, "--ema"])
    assert "--ema needs --checkpoint" in capsys.readouterr().err


def test_a_long_video_is_seen_whole_in_as_many_frames_as_wanted(clips):
    folder, _, (config, framework, _), _ = clips
    video, sight = folder / "000.mp4", Understanding(config, framework)
    config.data.seconds = 2.0
    every, few = (sight.seen(video, Look(max_frames=count))[0] for count in (None, 3))
    assert len(every) == 9 and len(few) == 3  # 2 s at 4 frames a second, both ends included
    assert torch.equal(few, every[[0, 4, 8]])
    assert thinned(4, 2, 9) == 4 and thinned(4, 200, 11) == 0.05


def test_a_missing_video_is_refused_before_anything_is_asked(clips, tmp_path, capsys):
    folder, _, _, loads = clips
    (folder / "003.mp4").unlink()
    with pytest.raises(SystemExit) as end:
        evaluate.main(command(folder, tmp_path / "results"))
    error = capsys.readouterr().err
    assert end.value.code == 2 and "lacks the video 003.mp4" in error and error.count("\n") == 1
    assert not loads and not (tmp_path / "results").exists()
