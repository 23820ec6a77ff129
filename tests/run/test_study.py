"""The study: the smoke profile from end to end, and the parts that its conclusions depend on."""

import csv
import fcntl
import json
import multiprocessing
import shutil
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from data_tools.items import Item
from data_tools.shapes import COLOURS, caption_is_right, item_of
from pipelines.shapes_study import arms, command, latents, llava, probe, render, report, scenes
from pipelines.shapes_study.arms import matched_hidden_dim
from pipelines.shapes_study.claims import claims_table
from pipelines.shapes_study.config import STUDY, ClaimConfig, Fitting, RenderConfig, load_study, merged
from pipelines.shapes_study.curves import curve_of, loss_table, mean_curve
from pipelines.shapes_study.dit import MOST_ROWS, lengthened
from pipelines.shapes_study.fitting import fit
from pipelines.shapes_study.results import Results, read_results, write_results
from pipelines.shapes_study.seeds import over_seeds
from pipelines.shapes_study.stages import Done, gate, slug, stage
from pipelines.study import main
from support.tiny import model_config
from vtok.assembly.build import build_framework
from vtok.assembly.tiny import train_tokenizer
from vtok.config import ConfigError
from vtok.motion_encoder import MotionEncoder


@pytest.mark.slow
def test_smoke_runs_to_its_report_and_losses_fall(tmp_path, monkeypatch, capsys):
    """Runs every stage with the code of the larger profiles, the real training pipeline included."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    main(["--profile", "smoke", "--output", str(tmp_path)])
    for name in ("clip", "llm", "llava", "dit"):
        figures = json.loads((tmp_path / name / "done.json").read_text())
        assert figures["last_loss"] < figures["first_loss"], name
    for name in ("vtok-0", "frames-4-0"):
        curve = json.loads((tmp_path / "arms" / name / "done.json").read_text())["curve"]
        for loss in ("loss_under", "loss_vis_lm"):
            assert curve[-1][loss] < curve[0][loss], (name, loss)
    text = (tmp_path / "report.md").read_text()
    assert "| vtok | 28 |" in text and "| frames 4 | 64 |" in text
    assert "| none, untuned | 0 |" in text and "| frames 4, read training-free | 28 |" in text
    assert "## Gates" in text and "an upper bound" in text and "first frame only" in text
    assert json.loads((tmp_path / "evaluation/vtok-probe/done.json").read_text())["lines"][-1]["asked"] == 7
    losses = {
        name: json.loads((tmp_path / f"evaluation/{name}-conditioning/done.json").read_text())["losses"]
        for name in ("vtok-0", "none-untuned")
    }
    assert set(losses["none-untuned"]) == {"nothing", "caption"}
    assert len(set(losses["vtok-0"].values())) == 3 and all(0 < loss < 10 for loss in losses["vtok-0"].values())
    assert f"| none, untuned | {losses['none-untuned']['nothing']:.4f} |" in text
    for picture in ("curves.png", "videos.png"):
        assert f"({picture})" in text and min(Image.open(tmp_path / picture).size) >= 32

    # A second start repeats nothing.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("done.json")}
    capsys.readouterr()
    main(["--profile", "smoke", "--output", str(tmp_path), "--publish", str(tmp_path / "kept")])
    assert capsys.readouterr().out == f"{tmp_path / 'report.md'}\n"
    kept = tmp_path / "kept"
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("done.json") if kept not in path.parents}
    assert after == before and (tmp_path / "report.md").read_text() == text

    # The published files are enough to write the report again.
    assert {path.name for path in kept.iterdir()} == {"results.jsonl", "report.md", "curves.png", "videos.png"}
    (kept / "report.md").unlink()
    (kept / "curves.png").unlink()
    main(["--profile", "smoke", "--report", str(kept)])
    assert (kept / "report.md").read_text() == text and (kept / "curves.png").exists()


def test_published_results_make_the_published_report(tmp_path):
    published = STUDY.parents[1] / "study_report"
    shutil.copy(published / "results.jsonl", tmp_path)
    main(["--profile", "cpu", "--report", str(tmp_path)])
    assert (tmp_path / "report.md").read_text() == (published / "report.md").read_text()


def test_results_are_read_as_they_were_written(tmp_path):
    results = Results("a command", 2, {"clip": {"last_loss": 0.25}}, {"vtok": 28}, videos="one (000)")
    results.trained = {"vtok": [[{"step": 1, "loss_dec": None}, {"step": 2, "loss_dec": 0.5}]]}
    results.answers = {"generation": {"vtok": measured(6, 7), "none": measured(3)}}
    write_results(results, tmp_path / "results.jsonl")
    assert read_results(tmp_path / "results.jsonl") == results
    with pytest.raises(ConfigError, match="no such file"):
        read_results(tmp_path / "other.jsonl")


def test_a_name_of_a_folder_has_no_space_or_comma():
    assert slug("1 cell, g_phi as of 4 x 4-0 real") == "1-cell-g_phi-as-of-4-x-4-0-real"


def test_a_gate_that_fails_stops_what_rests_on_it(tmp_path, monkeypatch):
    """The report is still written, and names the failed gate."""
    study = replace(load_study(STUDY, "smoke"), enforce_gates=True)
    losing = {"first_loss": 1.0, "last_loss": 0.5}
    done = {
        name: stage(tmp_path / name, name, [], lambda folder, figures=figures: figures)
        for name, figures in {
            "render": {}, "clip": losing | gate("binds", 5, 10, 0.9), "latents": dict(psnr=30.0, ceiling=1.0, items=7),
            "llm": losing, "llava": losing, "dit": losing, "guidance": dict(accuracy={"1.0": 0.5}, guidance=1.0),
            "text_gate": {"lines": []} | gate("reaches", 9, 10, 0.25),
        }.items()
    }  # fmt: skip
    monkeypatch.setattr(command, "encoders", lambda study, output: dict(done))
    monkeypatch.setattr(command, "language_and_decoder", lambda study, output, made: done)
    monkeypatch.setattr(command, "judged_decoder", lambda study, output, made: made)
    monkeypatch.setattr(command, "tokens_of", lambda study, model: 0)
    monkeypatch.setattr(arms, "train", lambda *_: pytest.fail("an arm was trained"))
    assert command.open_halves(study, done) == set()
    text = command.run(study, tmp_path, "study").read_text()
    assert "| binds | 5 of 10 |" in text and "**failed**" in text and "Strategies" not in text
    passed = done["clip"].figures | {"gate": done["clip"].figures["gate"] | {"passed": True}}
    done["clip"] = replace(done["clip"], figures=passed)
    assert command.open_halves(study, done) == {"understanding", "generation"}
    done["text_gate"] = replace(done["text_gate"], figures=gate("reaches", 2, 10, 0.25))
    assert command.open_halves(study, done) == {"understanding"}


def test_pictures_are_shown_as_key_frames_are(tiny_models):
    tokeniser = build_framework(model_config(tiny_models)).tokeniser
    frames = torch.randint(256, (2, 1, 3, 64, 64), dtype=torch.uint8)
    expected = tokeniser.features(frames, [1, 1]).spatial
    found = llava.picture_tokens(tokeniser.feature_extractor, frames[:, 0], 4)
    torch.testing.assert_close(found, expected)


def test_a_gate_asks_the_whole_interval():
    assert gate("x", 95, 100, 0.9)["gate"]["passed"] is False  # 88.8 to 97.8 %
    assert gate("x", 570, 600, 0.9)["gate"]["passed"] is True


def test_a_stage_is_not_done_twice_nor_with_other_settings(tmp_path):
    calls = []

    def make(folder):
        calls.append(folder)
        return {"x": 1.0}

    first = stage(tmp_path / "one", {"a": 1}, [], make)
    assert stage(tmp_path / "one", {"a": 1}, [], make) == first and len(calls) == 1
    assert first.figures["x"] == 1.0
    with pytest.raises(ConfigError, match="was made with other settings"):
        stage(tmp_path / "one", {"a": 2}, [], make)
    with pytest.raises(ConfigError, match="was made with other settings"):  # the stages it depends on count too
        stage(tmp_path / "one", {"a": 1}, [replace(first, key="x")], make)
    with pytest.raises(ZeroDivisionError):
        stage(tmp_path / "two", {}, [], lambda folder: 1 / 0)
    assert not (tmp_path / "two" / "done.json").exists() and stage(tmp_path / "two", {}, [], make).figures["x"] == 1.0


def test_processes_at_once_make_a_stage_once(tmp_path):
    """The second process waits for the first and uses its result."""
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=stage, args=(tmp_path / "one", 1, [], slowly)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert (tmp_path / "one" / "makers.txt").read_text() == "one\n"
    assert stage(tmp_path / "one", 1, [], slowly).figures["x"] == 1.0


def slowly(folder):
    with (folder / "makers.txt").open("a") as file:
        file.write("one\n")
    time.sleep(0.5)
    return {"x": 1.0}


def test_an_arm_that_another_process_is_at_is_awaited_behind_all_others(tmp_path, monkeypatch):
    study = replace(load_study(STUDY, "smoke"), seeds=[0, 1])
    (tmp_path / "locks").mkdir()
    monkeypatch.setattr(command, "encoders", lambda study, output: {})
    monkeypatch.setattr(command, "language_and_decoder", lambda study, output, made: {})
    monkeypatch.setattr(command, "judged_decoder", lambda study, output, made: made)
    monkeypatch.setattr(command, "open_halves", lambda study, frozen: {"understanding"})
    monkeypatch.setattr(command, "model_of", lambda *_: None)
    monkeypatch.setattr(command, "tokens_of", lambda study, model: 0)
    monkeypatch.setattr(command.report, "write", lambda *_: tmp_path / "report.md")
    made = []

    def result_of(study, output, name, seed, frozen, halves):
        made.append((name, seed))
        if len(made) == 3:
            other.close()  # the process that held the lock is done
        return command.Result(Done(tmp_path, "", {"curve": [{"step": 1}]}), {})

    monkeypatch.setattr(command, "result_of", result_of)
    other = (tmp_path / "locks" / "vtok-0").open("w")
    fcntl.flock(other, fcntl.LOCK_EX)
    command.run(study, tmp_path, "study")
    assert made == [("frames 4", 0), ("vtok", 1), ("frames 4", 1), ("vtok", 0)]


def test_a_process_that_would_wait_for_the_models_makes_features(tmp_path, monkeypatch):
    study = load_study(STUDY, "smoke")
    (tmp_path / "locks").mkdir()
    features = []
    monkeypatch.setattr(command, "encoders", lambda *_: {"clip": Done(tmp_path, "", {})})
    monkeypatch.setattr(command, "stored_features", lambda study, output, name, frozen: features.append(name))
    monkeypatch.setattr(
        command, "language_and_decoder", lambda *_: pytest.fail("waited", False) if not features else {}
    )
    monkeypatch.setattr(command, "judged_decoder", lambda study, output, made: made)
    monkeypatch.setattr(command, "open_halves", lambda study, frozen: set())
    monkeypatch.setattr(command, "model_of", lambda *_: None)
    monkeypatch.setattr(command, "tokens_of", lambda study, model: 0)
    monkeypatch.setattr(command.report, "write", lambda *_: tmp_path / "report.md")
    with (tmp_path / "locks" / "models").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        command.run(study, tmp_path, "study")
    assert features == list(study.arms)


def test_features_that_were_finished_but_not_noted_are_taken(tmp_path, monkeypatch):
    """``precompute.py`` itself refuses a finished folder, so the stage must not call it again."""
    study = load_study(STUDY, "smoke")
    monkeypatch.setattr(arms, "run", lambda *_: pytest.fail("precomputed again"))
    (tmp_path / arms.SHARDS).mkdir()
    (tmp_path / arms.SHARDS / "manifest.json").write_text("{}")
    assert arms.precompute(tmp_path, study, None, tmp_path / "clips") == {}


def test_fitting_goes_on_where_it_was_stopped_to_the_last_digit(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.shapes_study.fitting.SAVE_SECONDS", -1)
    fitting = Fitting(steps=12, lr=1e-2, warmup=3)

    def train(folder, stop=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
        folder.mkdir(exist_ok=True)

        def loss(step):
            if step == stop:
                raise KeyboardInterrupt
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            return (model(x) - x.sum(1, keepdim=True)).square().mean()

        return fit(model, loss, fitting, folder), model

    losses, model = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop=7)
    again, resumed = train(tmp_path / "cut")
    assert again == losses and len(losses) == 12 and losses[-1] < losses[0]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters()))


def test_exchanged_colours_make_a_caption_false():
    """Only the colours are exchanged."""
    found = 0
    for position in range(200):
        scene, _ = scenes.scene_at(0, position)
        for frame in range(scenes.FRAMES):
            caption, swapped = scenes.picture_caption(scene, frame), scenes.swapped_caption(scene, frame)
            if swapped is None:
                continue
            found += 1
            assert caption != swapped and sorted(caption.split()) == sorted(swapped.split())
            colourless = [[word for word in text.split() if word not in COLOURS] for text in (caption, swapped)]
            assert colourless[0] == colourless[1]
    assert found > 50


def test_detailed_captions_are_of_the_clips_own_scenes(tmp_path):
    render.make(tmp_path, RenderConfig(train=40, dev=1, test=1), seed=3)
    with (tmp_path / "train" / "captions.csv").open() as table:
        clips = list(csv.DictReader(table))
    for clip in clips:
        scene, draws = render.scene_of_clip("train", clip["path"], 3)
        assert clip["question"] in ("", item_of(scene, draws, "x").question)
        short, detailed = latents.captions_of(clip, 3)
        assert short == clip["caption"] != detailed
        assert caption_is_right(short, scene) and caption_is_right(detailed, scene)


def test_the_decoder_meets_conditioning_of_many_lengths():
    rows, draws = torch.randn(10, 8), torch.Generator().manual_seed(0)
    lengths = []
    for kind, count in torch.rand(400, 2, generator=draws).tolist():
        longer = lengthened(rows, kind, count, draws)
        assert torch.equal(longer[:10], rows) and longer.isfinite().all()
        lengths.append(len(longer) - 10)
    assert 0.4 < sum(length == 0 for length in lengths) / 400 < 0.6
    assert max(lengths) > 0.9 * MOST_ROWS and min(filter(None, lengths)) < 0.1 * MOST_ROWS


@pytest.mark.parametrize("width", [32, 96, 192])
@pytest.mark.parametrize("grid", [1, 2])
def test_g_phi_is_matched_in_parameters(width, grid):
    def size(encoder):
        return sum(p.numel() for p in encoder.parameters())

    matched = MotionEncoder(grid, width, width, matched_hidden_dim(width, grid, like=4))
    assert size(matched) == pytest.approx(size(MotionEncoder(4, width, width)), rel=0.01)


def test_profiles_are_whole_and_the_main_table_comes_first():
    for profile in ("smoke", "cpu", "gpu"):
        study = load_study(STUDY, profile)
        assert study.arms["vtok"].table == ["main", "spatial", "temporal", "residual"]
        names = [name for name, _ in command.order_of(study)]
        mains = [name for name in names if "main" in study.arms[name].table]
        assert names[: len(mains)] == mains
        if profile != "smoke":
            assert len(study.seeds) >= 3 and study.enforce_gates and len(study.arms) == 14
    with pytest.raises(ConfigError, match="no profile 'tpu'"):
        load_study(STUDY, "tpu")


def test_profiles_lie_over_what_is_common(tmp_path):
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": None}) == {"a": {"b": 4, "c": 2}}
    path = tmp_path / "study.yaml"
    path.write_text("arms: {vtok: {}}\nprofiles: {one: {clips: 3}}")
    with pytest.raises(ConfigError, match="clips"):
        load_study(path, "one")


def test_intervals_over_seeds_are_students():
    """Three seeds of 50, 60 and 70 % have a standard error of 5.77 points, and t is 4.303."""
    lines = [{"right": right, "asked": 10} for right in (5, 6, 7)]
    assert report.cell(lines) == "60.0 ± 24.8"
    assert report.cell(lines[:1]) == "50.0 (23.7–76.3)"
    assert report.percent(-1e-17) == "0.0"


@pytest.mark.parametrize("seeds, half", [(11, 0.02228), (12, 0.02291)])
def test_more_than_ten_seeds_have_students_interval_too(seeds, half):
    """Eleven accuracies one point apart have a standard error of 1 point, and t is 2.228.

    For twelve the standard error is sqrt(13 / 12) points, and t is 2.201.
    """
    accuracies = [0.5 + (place - (seeds - 1) / 2) / 100 for place in range(seeds)]
    estimate = over_seeds(accuracies)
    assert estimate.mean == pytest.approx(0.5)
    assert (estimate.low, estimate.high) == pytest.approx((0.5 - half, 0.5 + half), abs=5e-6)


def measured(*right: int, frozen: float = 0.0) -> list[dict]:
    """Returns the figures of one seed for each number of right answers out of ten."""
    return [{"lines": [{"name": "motion", "right": one, "asked": 10, "controls": {"frozen": frozen}}]} for one in right]


def test_claims_are_tested_by_differences_of_the_seeds():
    answers = {
        "understanding": {"vtok": measured(6, 7, 8, frozen=0.2), "frames 8": measured(5, 6, 7)},
        "generation": {"vtok": measured(7, 7, 7), "none": measured(3, 4, 5), "none, untuned": measured(9)},
    }

    def verdict(**claim) -> str:
        return claims_table([ClaimConfig("vtok", categories=["motion"], **claim)], answers)

    row = "| understanding, motion: vtok not below frames 8 | 70.0 ± 24.8 | 60.0 ± 24.8 | 10.0 ± 0.0 | held |"
    assert verdict(above="frames 8").endswith(row)
    assert "| 50.0 ± 24.8 | held |" in verdict(above="first frame only", apart=True)
    assert verdict(above="frames 8", points=11).endswith("| **missed** |")
    assert verdict(above="frames 8", apart=True).endswith("| **missed** |")  # the intervals overlap
    assert verdict(above="none", protocol="generation", points=30, apart=True).endswith("| held |")
    row = "vtok 3.4 points above none, untuned, intervals apart | 70.0 ± 0.0 | 90.0 (59.6–98.2) | -20.0 | **missed** |"
    assert verdict(above="none, untuned", protocol="generation", points=3.4, apart=True).endswith(row)
    assert verdict(above="frames 4") == ""  # not measured


def test_what_was_tried_is_said_where_a_claim_is_missed():
    study = replace(load_study(STUDY, "cpu"), tried=["More of it.", "Less of it."])
    said = report.tried(study, "| one | held |\n| two | **missed** |")
    assert said[0] == "What was tried where a claim is missed:" and said[1] == "- More of it.\n- Less of it."
    assert report.tried(study, "| one | held |") == []


def test_an_unfinished_study_reports_what_it_has():
    """Arms finish one after another. The second arm that also reads training-free tokens is still missing."""
    study = load_study(STUDY, "cpu")
    figures = measured(6)
    for line in figures[0]["lines"]:
        line["controls"] |= {"chance": 0.25, "majority": 0.3}
    understood = {"vtok": figures, "frames 8": figures}
    answers = dict.fromkeys(report.PROTOCOLS, {}) | {
        "understanding": understood, "training_free": {"frames 8, read training-free": figures},
    }  # fmt: skip
    sections = "\n".join(report.accuracy_sections(study, answers, {"vtok": 28, "frames 8": 128}))
    assert "| frames 8 | 128 | 60.0 (31.3–83.2) |" in sections and "frames 4" not in sections
    assert "**Not finished: 40 runs" in report.heading(study, "a command", 40)
    assert "Not finished" not in report.heading(study, "a command", 0)


def test_a_probe_finds_what_features_hold_and_nothing_in_the_first_frame(tmp_path):
    """The second of two tokens holds the answer; the last fifth of the clips is held out."""
    tokenizer = train_tokenizer(["Which way does it move? To the left. To the right."])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    options = ("To the left.", "To the right.")
    generator = torch.Generator().manual_seed(0)
    right = torch.randint(2, (200,), generator=generator)
    clips = [
        Item(f"{k}", "direction", "x", "Which way does it move?", options, options[r]) for k, r in enumerate(right)
    ]
    tokens = torch.randn(200, 2, 4, generator=generator)
    tokens[:, 1, 0] = 2.0 * right - 1
    accuracies = []
    for name, seen in (("all", tokens), ("first", tokens[:, :1])):
        said = probe.picked(tmp_path / name, seen, clips, tmp_path / "tokenizer.json", Fitting(60, 32, 3e-3, 5), 0)
        accuracies.append(sum(a == clip.answer for a, clip in zip(said, clips[-40:], strict=True)) / 40)
    assert accuracies[0] > 0.9 and 0.25 < accuracies[1] < 0.75


def test_curves_are_means_of_what_was_measured():
    """250 steps of half a second become 100 points. Every other step has no L_dec; a point without any has None."""
    log = [
        {"samples_per_s": 8.0, "loss_under": float(step), "loss_vis_lm": 1.0, "loss_dec": 2.0 if step % 2 else None}
        for step in range(250)
    ]
    curve = curve_of(log, batch=4)
    assert len(curve) == 100 and curve[-1]["step"] == 250 and curve[-1]["seconds"] == pytest.approx(125)
    assert [point["step"] for point in curve[:3]] == [2, 5, 7]
    assert [point["loss_under"] for point in curve[:2]] == [0.5, 3.0]
    assert {point["loss_dec"] for point in curve} == {2.0}

    few = curve_of(log[:3], batch=4)
    assert [point["loss_dec"] for point in few] == [None, 2.0, None]
    slower = [point | {"loss_under": point["loss_under"] + 1, "seconds": 2 * point["seconds"]} for point in few]
    both = mean_curve([few, slower])
    assert [point["loss_under"] for point in both] == [0.5, 1.5, 2.5] and both[-1]["seconds"] == pytest.approx(2.25)
    table = loss_table({"quick": few, "slow": slower})  # the slow arm takes one step while the quick one takes three
    assert "| quick | 0.50 | 2.000 / 2.000 | 1.000 / 1.000 | 2.000 / 2.000 |" in table
    assert "| slow | 1.00 | 3.000 / 1.000 | 1.000 / 1.000 | 2.000 / – |" in table


def test_arms_of_the_same_features_share_them(tmp_path, monkeypatch):
    study = load_study(STUDY, "cpu")
    monkeypatch.setattr(arms, "precompute", lambda folder, *_: {})
    frozen = dict.fromkeys(("clip", "latents", "render"), Done(tmp_path, "key", {}))
    folders = {name: command.stored_features(study, tmp_path, name, frozen).name for name in study.arms}
    assert folders["1 cell, g_phi as of 4 x 4"] == "vtok"
    assert folders["2 x 2 cells, g_phi as of 4 x 4"] == "2-x-2-cells-g_phi-as-of-4-x-4"
    assert len(set(folders.values())) == len(study.arms) - 1
