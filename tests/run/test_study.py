"""The study of strategies: its power, its splits, its verdicts, and the smoke profile from end to end."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.shapes import CATEGORIES, COLOURS, SHAPES, TV_ALIGN
from data_tools.shapes.scene import held_out
from pipelines.shapes_study import questions
from pipelines.shapes_study.origin import RESULTS
from pipelines.shapes_study.seeds import Estimate
from pipelines.shapes_study.stages import Done
from pipelines.shapes_study.strategies import arm, asking, codecs, command, making, own_tokens, report, world
from pipelines.shapes_study.strategies.claims import finding, findings, verdict
from pipelines.shapes_study.strategies.config import STRATEGIES, ClaimConfig, StrategiesConfig, load_strategies
from pipelines.shapes_study.strategies.likeness import AWAY, OCTAVES, likeness
from pipelines.shapes_study.strategies.model import (
    StoredGrids,
    features_of,
    framework_of,
    model_of,
    new_parts,
    tokens_of,
)
from pipelines.shapes_study.strategies.pictures import looks_of
from pipelines.shapes_study.strategies.results import Results, packed, read_results, unpacked, write_results
from pipelines.shapes_study.strategies.series import series
from pipelines.study import main
from support.commands import called
from support.launch import assert_user_error
from vtok.config import ConfigError
from vtok.tokeniser import build_tokeniser

MACHINE = re.compile(r"/(tmp|work|home|root)/")


@pytest.mark.slow
def test_smoke_runs_to_its_report_and_a_second_start_repeats_nothing(tmp_path, capsys):
    kept = tmp_path / "kept"
    arguments = ["--profile", "smoke", "--output", str(tmp_path), "--publish", str(kept)]
    main(arguments)
    text = (tmp_path / "report.md").read_text()
    assert "Not finished" not in text and text.index("## Findings") < text.index("## Power") < text.index(
        "## Strategies"
    )
    assert "unseen combinations" in text and "| vtok, own |" in text and "| *autoencoder* |" in text
    assert re.search(r"\| frames 4, read training-free \|  \| 2 \|", text)
    assert re.search(r"\| Table 1 \| understanding: Video-LaViT\* above OmniTokenizer\* \| 2 \| \S+ ± ", text)
    assert not MACHINE.search(text) and not MACHINE.search((kept / "results.jsonl").read_text())

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("done.json")}
    capsys.readouterr()
    main(arguments)
    assert capsys.readouterr().out == f"{tmp_path / 'report.md'}\n"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("done.json")} == before

    # The published files are enough to write the report again, with all its pictures.
    (kept / "report.md").unlink()
    main(["--profile", "smoke", "--report", str(kept)])
    assert (kept / "report.md").read_text() == text
    pictures = re.findall(r"(?:\]\(|src=\")([\w./-]+\.(?:png|gif))", text)
    arms = load_strategies(STRATEGIES, "smoke").arms
    assert len(pictures) == 1 + len(arms) * len(TV_ALIGN) and all((kept / name).exists() for name in pictures)
    with Image.open(kept / "videos" / "vtok-motion.gif") as gif:  # true clip, autoencoder, and three kinds of video
        assert gif.n_frames == 9 and gif.size == (5 * 34, 34)
    assert max((kept / name).stat().st_size for name in pictures if name.endswith("gif")) < 50_000


def test_the_report_of_a_folder_without_results_is_one_line(tmp_path):
    assert_user_error(called(main, "--profile", "smoke", "--report", tmp_path), "no such file")
    assert_user_error(called(main, "--profile", "tpu", "--report", tmp_path), "no profile 'tpu'")
    (tmp_path / "results.jsonl").write_text('{"kind": "study", "origin": "another"}\n')
    assert_user_error(called(main, "--profile", "smoke", "--report", tmp_path), "another study")


def test_runs_that_the_results_hold_are_known_if_their_settings_are_the_same(tmp_path):
    config, of = load_strategies(STRATEGIES, "smoke"), ("understanding", "new")
    keys = {("vtok", 0): command.run_key(config, "vtok"), ("vtok", 1): "of other settings"}
    answers = {"vtok": {of: {0: {"right": [1, 0]}, 1: {"right": [1, 1]}}}}
    runs = {run: {"key": key} for run, key in keys.items()}
    write_results(Results("here", "models", runs=runs, answers=answers, shown=["vtok", "none"]), tmp_path / RESULTS)
    known = command.recorded(config, tmp_path)
    assert list(known.runs) == [("vtok", 0)] and known.shown == ["vtok"]
    assert known.answers == {"vtok": {of: {0: {"right": [1, 0]}}}}
    found = command.gathered(config, "there", {}, {}, known)
    assert list(found.runs) == [("vtok", 0)] and found.answers == known.answers and found.origin == "there"
    write_results(Results("earlier", "models", runs={("vtok", 0): {"seconds": 1.0}}), tmp_path / RESULTS)
    assert not command.recorded(config, tmp_path).runs  # an earlier version wrote no keys
    write_results(Results("here", "models", runs=runs, answers=answers, shown=["vtok", "none"]), tmp_path / RESULTS)
    longer = replace(config, fit=replace(config.fit, steps=5))
    assert not command.recorded(longer, tmp_path).runs and not command.recorded(config, tmp_path / "none").runs


def test_the_results_hold_what_other_processes_finished(tmp_path, smoke, monkeypatch):
    """A process that ends its first run reports the runs that others have ended; those under way are left out."""
    for run, left_out in (("none", 1), 0), (("vtok", 0), 1):
        asked = command.asked_of(smoke, *run)
        for of in asked[left_out:]:
            folder = tmp_path / "answers" / command.answers_folder(*run, *of)
            folder.mkdir(parents=True)
            (folder / "done.json").write_text("{}")

    def run_of(config: StrategiesConfig, output: Path, encoded: dict, name: str, seed: int) -> command.Run:
        answered = {
            of[:2]: Done(output, "", {"right": [1, 0], "seconds": 1.0}) for of in command.asked_of(config, name, seed)
        }
        return command.Run(
            Done(output, "", {"tokens": 0}), Done(output, "", {"last_loss": 1.0, "seconds": 2.0}), answered
        )

    monkeypatch.setattr(command, "run_of", run_of)
    monkeypatch.setattr(command, "encoded_clips", lambda *_: None)
    monkeypatch.setattr(command, "ceilings_of", lambda *_: {})
    monkeypatch.setattr(command, "shown", lambda *_: [])
    monkeypatch.setattr(command.report, "write", lambda folder, *_: folder)
    monkeypatch.setattr(command, "make_all", lambda runs, output, done, make, write: write())
    command.run(smoke, tmp_path, "here")
    found = read_results(tmp_path)
    assert list(found.runs) == [("none", 1)] and list(found.arms) == ["none"]


# ---------------------------------------------------------------- clips


def test_unseen_combinations_are_unseen_and_their_pairs_are_not():
    config = load_strategies(STRATEGIES, "smoke")
    config.world.train = 1800
    seen, unseen = world.train_clips(config.world, 0), world.asked_clips(world.UNSEEN, 24, 0)

    def triple(clip: world.Clip) -> tuple[str, str, str, str]:
        one = clip.scene.things[0]
        return clip.scene.category, clip.scene.label, one.colour, one.shape

    assert not {*map(triple, seen)} & {*map(triple, unseen)} and all(held_out(*triple(clip)) for clip in unseen)
    assert not {*map(triple, world.asked_clips(world.NEW, 24, 0))} & {*map(triple, unseen)}
    pairs = {(category, colour, shape) for category, _, colour, shape in map(triple, seen)}
    for category in CATEGORIES:
        # In the category colour the label is the colour, so a pair is the whole combination.
        wanted = set(itertools.product([category], COLOURS, SHAPES)) if category != "colour" else set()
        assert wanted <= pairs


def test_more_clips_leave_the_first_ones_as_they_are():
    few, many = world.asked_clips(world.NEW, 3, 0), world.asked_clips(world.NEW, 5, 0)
    assert world.first_of_each(many, 2, ("colour", "motion")) == [20, 21, 30, 31]
    kept = [many[place] for place in world.first_of_each(many, 3, tuple(CATEGORIES))]
    assert [clip.item for clip in kept] == [clip.item for clip in few]
    frames = [[world.frames_of(clip.scene, 3, 1.0, 32) for clip in clips] for clips in (kept, few)]
    assert np.array_equal(*frames)
    others = {clip.scene.background for clip in world.asked_clips(world.UNSEEN, 3, 0)}
    assert not others & {clip.scene.background for clip in few}


def test_the_decoder_is_shown_the_same_moments_as_the_tokeniser():
    """Three frames per second against twelve."""
    clip = world.asked_clips(world.NEW, 2, 0)[-1]
    often = world.frames_of(clip.scene, 37, 12.0, 32, finer=2)
    rarely = world.decoder_frames(clip.scene, SimpleNamespace(fps=3.0, height=32), 3.0)
    assert rarely.shape == (9, 32, 32, 3) and np.array_equal(rarely, often[::4][:9])


# ---------------------------------------------------------------- arms


@pytest.fixture(scope="module")
def smoke() -> StrategiesConfig:
    return load_strategies(STRATEGIES, "smoke")


def test_arms_start_with_the_same_weights_where_their_shapes_are_the_same(smoke):
    """Language model and spatial head of ``frames`` and ``vtok``; another seed changes new parts alone."""
    cells = {"frames 4": ("visual_head.spatial",), "vtok": ("visual_head.spatial", "motion_encoder")}
    first = framework_of(smoke, smoke.arms["vtok"], 0)
    for name, seed, same in (("frames 4", 0, True), ("vtok", 1, False)):
        other = framework_of(smoke, smoke.arms[name], seed)
        for part in cells[name]:
            pairs = list(zip(new_parts(first)[part].parameters(), new_parts(other)[part].parameters(), strict=True))
            assert pairs and all(torch.equal(*pair) for pair in pairs) == same, (name, part)
        assert all(torch.equal(*pair) for pair in zip(first.mllm.parameters(), other.mllm.parameters()))


def test_stored_features_are_pooled_as_the_tokeniser_pools_frames():
    config = load_strategies(STRATEGIES, "cpu")
    grids = torch.randn(2, 37, 8, 8, 96)
    tokens = {}
    for name, settings in config.arms.items():
        if settings.tokeniser.get("strategy") in config.codecs:
            continue
        tokeniser = build_tokeniser(model_of(config, settings).tokeniser, StoredGrids(96))
        found = features_of(tokeniser, grids.half(), torch.device("cpu"))
        tokens[name] = found.token_counts[0]
        assert tokens[name] == sum(tokeniser.counts(config.world.frames))
        if name == "25 spatial tokens":
            wanted = torch.nn.functional.adaptive_avg_pool2d(grids[:, 0].permute(0, 3, 1, 2), 5)
            torch.testing.assert_close(found.spatial.float(), wanted.flatten(2).transpose(1, 2), atol=1e-2, rtol=0)
    assert tokens == {
        "vtok": 34, "frames 8": 128, "frames 4": 64, "none": 0, "4 x 4 cells": 34,
        "1 spatial token": 19, "4 spatial tokens": 22, "9 spatial tokens": 27, "25 spatial tokens": 43,
        "3 motion tokens per second": 25, "12 motion tokens per second": 52,
        "1 cell, g_phi as of 4 x 4": 34,
    }  # fmt: skip


@pytest.mark.parametrize("name, tokens", [("OmniTokenizer*", 16 + 5 * 4), ("Video-LaViT*", 16 + 18)])
def test_an_arms_codec_is_trained_on_the_clips_and_read_by_its_tokeniser(tmp_path, smoke, name, tokens):
    """The features that a codec's stage stores are those of the real tokeniser with this codec, on rendered frames."""
    settings, clips = load_strategies(STRATEGIES, "cpu").arms[name], world.train_clips(smoke.world, 0)[:3]
    assert codecs.train(tmp_path, smoke, settings, clips)["last_loss"] > 0
    place = tmp_path / codecs.CODEC
    codecs.encode(tmp_path, smoke, settings, place, clips)
    coded = world.Coded(world.Encoded(tmp_path / "none", clips), place, tmp_path)
    framework = framework_of(smoke, settings, 0, place)
    found = coded.features(framework.tokeniser, [2, 0])
    assert found.token_counts == [tokens] * 2 and tokens_of(smoke, framework) == tokens

    whole = build_tokeniser(model_of(smoke, settings, place).tokeniser)
    frames = torch.from_numpy(world.frames_of(clips[2].scene, 37, 12, 64)).permute(0, 3, 1, 2)[None]
    wanted = whole.features(frames, fps=12)
    for kind in ("spatial", "motion"):
        torch.testing.assert_close(getattr(found, kind)[:1].float(), getattr(wanted, kind), atol=2e-3, rtol=2e-3)
    assert framework.embedded(framework.restored(coded.features(framework.tokeniser, [0]))).shape[1] == tokens


def test_half_of_the_samples_are_only_asked_about(smoke):
    framework, clips = framework_of(smoke, smoke.arms["vtok"], 0), world.train_clips(smoke.world, 0)[:5]
    texts = arm.texts_of(framework, SimpleNamespace(clips=clips))
    nothing = torch.zeros(5, 0)
    asked = arm.half_asked(framework, arm.Examples(None, texts, nothing, nothing)).texts
    assert [text.decodes for text in asked] == [text.predicts for text in asked] == [True] * 3 + [False] * 2
    assert [text.answer for text in asked] == [text.answer for text in texts] and asked[:3] == texts[:3]


def test_own_features_are_kept_and_depend_on_the_clip_and_the_seed_alone(tmp_path, smoke, monkeypatch):
    clips = world.train_clips(smoke.world, 0)[:5]
    for name in ("vtok", "none"):
        framework = framework_of(smoke, smoke.arms[name], 0)
        found = own_tokens.own_features(tmp_path / name, smoke, framework, clips, seed=1)
        assert found.token_counts == [sum(framework.tokeniser.counts(smoke.world.frames))] * 5
        assert framework.training
        fewer = own_tokens.sampled(smoke, framework.eval(), clips[:2], 1)
        torch.testing.assert_close(fewer.spatial.half(), found.spatial[:2], atol=1e-2, rtol=1e-2)
        torch.testing.assert_close(fewer.motion.half(), found.motion[:2], atol=1e-2, rtol=1e-2)
        other = own_tokens.sampled(smoke, framework, clips[:2], 2)
        assert name == "none" or (other.motion - fewer.motion).abs().median() > 0.1
        with monkeypatch.context() as context:
            context.setattr(own_tokens, "sampled", lambda *_: pytest.fail("sampled again"))
            again = own_tokens.own_features(tmp_path / name, smoke, framework, clips, seed=1)
        assert torch.equal(again.motion, found.motion) and again.motion_counts == found.motion_counts


def test_runs_go_seed_by_seed_and_arms_with_a_codec_come_last():
    config = load_strategies(STRATEGIES, "cpu")
    coded = ["OmniTokenizer*", "Video-LaViT*"]
    others = [arm for arm in config.arms if arm not in coded]
    assert config.runs[:5] == [(name, 0) for name in ("vtok", "frames 8", "frames 4", "none", "4 x 4 cells")]
    assert config.runs == [(arm, seed) for arms in (others, coded) for seed in range(config.seeds) for arm in arms]
    assert len(set(config.runs)) == 14 * config.seeds


def test_main_arms_are_asked_most(smoke):
    config = load_strategies(STRATEGIES, "cpu")
    asked = {name: [what[:2] for what in command.asked_of(config, name, 0)] for name in config.arms}
    assert ("own", "new") in asked["vtok"] and ("own", "new") not in asked["none"] + asked["1 spatial token"]
    assert asked["frames 8"][-1] == ("training free", "new")  # it changes the model
    later = [what[:2] for what in command.asked_of(config, "vtok", config.asked.other_seeds)]
    assert later == [("understanding", "new"), ("understanding", "unseen"), ("generation", "new")]
    with pytest.raises(ConfigError, match="two arms"):
        replace(smoke, arms={"vtok": smoke.arms["vtok"]})


def test_noise_depends_on_the_clip_alone(smoke):
    one, other = world.asked_clips(world.NEW, 2, 0)[:2]

    def noise(clip: world.Clip, what: str) -> torch.Tensor:
        return torch.randn(8, generator=making.noise_of(smoke, clip, what))

    assert torch.equal(noise(one, "video"), noise(one, "video"))
    assert not torch.equal(noise(one, "video"), noise(other, "video"))
    assert not torch.equal(noise(one, "video"), noise(one, "tokens"))


def test_the_likeliest_option_is_taken_as_it_is(monkeypatch):
    """A long option is not favoured: the sum over its tokens counts."""
    losses = {"Up.": [3.0], "Down.": [1.0, 1.5], "Left.": [2.6]}
    monkeypatch.setattr(
        questions,
        "answer_losses",
        lambda _, visual, counts, question, options: [torch.tensor(losses[o]) for o in options],
    )
    item = SimpleNamespace(question="Which way?", options=tuple(losses))
    assert questions.likeliest(None, None, 9, item) == "Down."


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, smoke, monkeypatch):
    """It is stopped in the middle of the first and of the second part of its training. Its answers are the same too."""
    monkeypatch.setattr("pipelines.shapes_study.fitting.SAVE_SECONDS", -1)
    clips = world.train_clips(smoke.world, 0)[:12]
    world.encode(tmp_path, smoke.world, clips)
    encoded, found = world.Encoded(tmp_path, clips), []
    for name, stopped in (("whole", None), ("first part", 2), ("second part", 5)):
        (tmp_path / name).mkdir()
        if stopped is not None:
            with monkeypatch.context() as context:
                steps, real = itertools.count(), arm.VTokFramework.forward

                def failing(*given, **named):
                    if next(steps) == stopped:
                        raise KeyboardInterrupt
                    return real(*given, **named)

                context.setattr(arm.VTokFramework, "forward", failing)
                with pytest.raises(KeyboardInterrupt):
                    arm.train(tmp_path / name, smoke, smoke.arms["vtok"], encoded, seed=1)
        found.append(arm.train(tmp_path / name, smoke, smoke.arms["vtok"], encoded, seed=1))
    assert found[0].losses == found[1].losses == found[2].losses and len(found[0].losses) == 6
    one, *others = (asking.ask(run.framework.eval(), encoded, smoke.world.frames) for run in found)
    assert others == [one, one] and len(one["right"]) == 12


# ---------------------------------------------------------------- measures


def picture(*things: tuple[int, int, int]) -> np.ndarray:
    """Returns a clip of 9 frames of 64 pixels with white squares: (x, y, side)."""
    frames = np.full((9, 64, 64, 3), 30, np.uint8)
    for x, y, side in things:
        frames[:, y : y + side, x : x + side] = 230
    return frames


def test_likeness_tells_how_far_things_are_from_their_true_places_and_sizes():
    true = picture((8, 8, 12), (40, 40, 12))
    assert likeness(true, true) == (0, 0)
    moved = likeness(picture((8, 24, 12), (40, 40, 12)), true)
    assert moved.place == pytest.approx(16 / 64 / 2, abs=0.01) and moved.size < 0.05
    larger = likeness(picture((6, 6, 16), (38, 38, 16)), true)
    assert larger.place < 0.01 and larger.size == pytest.approx(2 * np.log2(16 / 12), abs=0.15)
    missing = likeness(picture((8, 8, 12)), true)
    assert missing.place == pytest.approx(AWAY / 2, abs=0.01) and missing.size == pytest.approx(OCTAVES / 2, abs=0.05)
    assert likeness(picture(), true) == (AWAY, OCTAVES)
    third = likeness(picture((8, 8, 12), (40, 40, 12), (40, 8, 12)), true)
    assert max(third) < 0.01  # the questions are about that


# ---------------------------------------------------------------- results and claims


def measured(**answers: dict[int, list[int]]) -> Results:
    """Returns results of two categories of three questions each, by arm and seed."""
    results = Results("a command", "hash", {("understanding", "new"): ["motion"] * 3 + ["colour"] * 3})
    for name, seeds in answers.items():
        results.answers[name] = {("understanding", "new"): {seed: {"right": own} for seed, own in seeds.items()}}
        results.arms[name] = {"tokens": 34, "flops": 1e12, "g_phi": 100}
    return results


def test_results_are_read_as_they_were_written(tmp_path):
    results = measured(vtok={0: [0, 0, 1, 1, 0, 1], 1: [0] * 6}, none={0: [1] * 6})
    results.shown = ["vtok"]
    results.runs["vtok", 1] = {"last_loss": 0.5, "seconds": 4.0}
    results.categories["own", "new"] = ["motion", "motion"]
    results.answers["vtok"]["own", "new"] = {0: {"right": [1, 0], "place": [0, 50], "size": [36, 9]}}
    results.ceilings["true clip", "new"] = {"right": [1, 1], "place": [0, 0], "size": [0, 1]}
    write_results(results, tmp_path / "results.jsonl")
    assert read_results(tmp_path) == results
    assert series(results, "vtok", "own place")[0].tolist() == [0, -AWAY]
    assert series(results, "vtok", "understanding", category="colour")[0].tolist() == [1, 0, 1]
    assert series(results, "vtok", "generation") == {}


def test_values_are_stored_in_few_characters():
    right = [0, 0, 1] * 400
    assert len(packed({"right": right})["right"]) <= 301 and unpacked(packed({"right": right})) == {"right": right}


@pytest.mark.parametrize(
    "kind, points, low, high, said",
    [
        ("above", 0, 0.01, 0.05, "held"),
        ("above", 0, -0.01, 0.05, "undecided"),
        ("above", 0, -0.05, -0.01, "**refuted**"),
        ("above", 3.4, 0.01, 0.09, "undecided"),
        ("above", 3.4, 0.035, 0.09, "held"),
        ("above", 3.4, 0.01, 0.03, "**refuted**"),
        ("equal", 3, -0.02, 0.029, "held"),
        ("equal", 3, -0.02, 0.031, "undecided"),
        ("equal", 3, 0.031, 0.05, "**refuted**"),
        ("equal", 3, -0.05, -0.031, "**refuted**"),
        ("not below", 3, -0.02, 0.5, "held"),
        ("not below", 3, -0.04, 0.5, "undecided"),
        ("not below", 3, -0.06, -0.04, "**refuted**"),
    ],
)
def test_verdicts_are_those_of_the_whole_interval(kind, points, low, high, said):
    claim = ClaimConfig("Table 4", "vtok", "none", kind=kind, points=points)
    assert verdict(claim, Estimate((low + high) / 2, low, high, "")) == said


def test_an_undecided_claim_says_what_it_would_take():
    draws = np.random.default_rng(3)
    right = {name: {seed: draws.integers(0, 2, 6).tolist() for seed in range(3)} for name in ("vtok", "frames", "same")}
    results = measured(**right, none={seed: [0] * 6 for seed in range(3)}, all={seed: [1] * 6 for seed in range(3)})
    claims = [ClaimConfig("Table 4", "all", than, of=["understanding"]) for than in ("none", "vtok", "missing")]
    held, other, unmeasured = findings(claims, results)
    assert held.verdict == "held" and held.difference.startswith("+100.0") and held.needed == "" and held.seeds == 3
    assert unmeasured.verdict == "not measured" and unmeasured.seeds == 0
    assert other.claim == "understanding: all above vtok"
    undecided = finding(ClaimConfig("Table 4", "vtok", "frames", kind="equal", points=1), "understanding", results)
    assert undecided.verdict == "undecided" and "seeds" in undecided.needed
    assert undecided.claim == "understanding: vtok within 1 points of frames"


def test_equality_needs_a_margin():
    with pytest.raises(ConfigError, match="points above 0"):
        ClaimConfig("Table 5", "vtok", "none", kind="equal")


def test_no_two_arms_look_the_same_in_the_picture_of_costs():
    looks = looks_of(load_strategies(STRATEGIES, "cpu"))
    assert len(set(looks.values())) == len(looks)
    assert looks["vtok"].marker == "*"
    assert looks["1 spatial token"].colour == looks["9 spatial tokens"].colour != looks["frames 8"].colour


def test_an_unfinished_study_reports_what_it_has(tmp_path, smoke):
    results = Results("a command", "hash", runs={("none", 1): {}, ("an arm of before", 0): {}})
    text = report.heading(smoke, results)
    assert f"**Not finished**: 1 runs are done, {len(smoke.runs) - 1} are still to come." in text
    assert report.write(tmp_path, smoke, results).read_text() == text + "\n"
