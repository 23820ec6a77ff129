"""The base models: their stages from end to end, and the parts that all studies share."""

import csv
import multiprocessing
import re
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from data_tools.draws import Draws
from data_tools.shapes import COLOURS, item_of
from pipelines.shapes_study import arms, command, llava, render, scenes
from pipelines.shapes_study.arms import matched_hidden_dim
from pipelines.shapes_study.config import STUDY, Fitting, RenderConfig, load_study, merged
from pipelines.shapes_study.curves import curve_of
from pipelines.shapes_study.dit import MOST_ROWS, lengthened
from pipelines.shapes_study.fitting import fit
from pipelines.shapes_study.stages import gate, slug, stage
from support.tiny import model_config
from vtok.assembly.build import build_framework
from vtok.config import ConfigError
from vtok.motion_encoder import MotionEncoder


@pytest.mark.slow
def test_the_stages_of_smoke_run_and_their_losses_fall(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    study = load_study(STUDY, "smoke")
    done = command.language_and_decoder(study, tmp_path, command.encoders(study, tmp_path))
    for name in ("clip", "llm", "llava", "dit"):
        assert done[name].figures["last_loss"] < done[name].figures["first_loss"], name
    assert done["latents"].figures["items"] == 7


def test_a_name_of_a_folder_has_no_space_or_comma():
    assert slug("1 cell, g_phi as of 4 x 4-0 real") == "1-cell-g_phi-as-of-4-x-4-0-real"


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


def test_long_captions_say_where_things_are_when(tmp_path):
    """A long caption begins with the clip's own caption and describes the same clip."""
    render.make(tmp_path, RenderConfig(train=40, dev=1, test=1), seed=3)
    with (tmp_path / "train" / "captions.csv").open() as table:
        clips = list(csv.DictReader(table))
    long = {}
    for clip in clips:
        scene = render.scene_of_clip("train", clip["path"], 3)
        assert clip["question"] in ("", item_of(scene, Draws(1_000_003, int(clip["path"][:-4])), "x").question)
        long[scene.label] = scenes.description(scene, clip["caption"])
        assert long[scene.label].startswith(clip["caption"] + " First a ")
    assert "Last" not in long["stays"]  # nothing changes, so it is described once
    before, after = re.fullmatch(r".*First (.*)\. Last (.*)\.", long["changes"]).groups()
    assert before != after and before.split()[2:] == after.split()[2:]


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


def test_profiles_lie_over_what_is_common(tmp_path):
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": None}) == {"a": {"b": 4, "c": 2}}
    path = tmp_path / "study.yaml"
    path.write_text("arms: {vtok: {}}\nprofiles: {one: {clips: 3}}")
    with pytest.raises(ConfigError, match="clips"):
        load_study(path, "one")


def test_a_curve_has_the_means_of_what_was_measured():
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
    assert [point["loss_dec"] for point in curve_of(log[:3], batch=4)] == [None, 2.0, None]
