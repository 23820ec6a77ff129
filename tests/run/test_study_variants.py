"""The study of variants: its runs resume, its report is paired, and the smoke profile runs from end to end."""

import shutil

import numpy as np
import pytest
import torch

from data_tools.shapes.cuts import SIDES
from pipelines.shapes_study.config import ArmConfig
from pipelines.shapes_study.matched import matched_hidden_dim
from pipelines.shapes_study.paired import paired_difference
from pipelines.shapes_study.stored_grids import StoredGrids
from pipelines.shapes_study.variants import arm, report, world
from pipelines.shapes_study.variants.config import VARIANTS, VariantsConfig, WorldConfig, load_variants
from pipelines.shapes_study.variants.report import Answers, Results, read_results, write_results
from pipelines.study_variants import main
from support.commands import called
from support.launch import assert_user_error
from vtok.config import ConfigError, VTokConfig
from vtok.feature_extractor import build_feature_extractor
from vtok.motion_encoder import MotionEncoder, QueryMotionEncoder
from vtok.tokeniser import build_tokeniser

WORLD = WorldConfig(train=12, asked=2)
PUBLISHED = VARIANTS.parents[1] / "study_report" / "variants"


@pytest.mark.slow
def test_smoke_runs_to_its_report_and_a_second_start_repeats_nothing(tmp_path, capsys):
    arguments = ["--profile", "smoke", "--output", str(tmp_path), "--publish", str(tmp_path / "kept")]
    main(arguments)
    text = (tmp_path / "report.md").read_text()
    assert text.count("| vtok | 156,") == 1 and text.count("| 4 x 4 cells | 2 |") == 1 and "Not finished" not in text
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("done.json")}
    assert len(before) == 2 + 7 * 2 * 2
    capsys.readouterr()
    main(arguments)
    assert capsys.readouterr().out == f"{tmp_path / 'report.md'}\n"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("done.json")} == before
    (tmp_path / "kept" / "report.md").unlink()
    main(["--profile", "smoke", "--report", str(tmp_path / "kept")])
    assert (tmp_path / "kept" / "report.md").read_text() == text


def test_the_report_of_a_folder_without_results_is_one_line(tmp_path):
    assert_user_error(called(main, "--profile", "smoke", "--report", tmp_path), "no such file")
    assert_user_error(called(main, "--profile", "tpu", "--report", tmp_path), "no profile 'tpu'")


def test_all_arms_of_the_study_have_as_many_parameters_and_tokens():
    config = load_variants(VARIANTS, "cpu")
    assert next(iter(config.arms)) == "vtok" and len(config.seeds) >= 5
    extractor, sizes, tokens = StoredGrids(96), [], []
    for settings in config.arms.values():
        tokeniser = build_tokeniser(arm.model_of(config, settings).tokeniser, extractor)
        sizes.append(sum(p.numel() for p in tokeniser.motion_encoder.parameters()))
        tokens.append(sum(tokeniser.counts(config.world.frames)))
    assert max(sizes) < 1.02 * min(sizes) and set(tokens) == {16 + 12}


@pytest.mark.parametrize("width", [64, 96, 192])
def test_a_query_is_matched_in_parameters(width):
    def size(encoder):
        return sum(p.numel() for p in encoder.parameters())

    matched = QueryMotionEncoder(4, width, width, matched_hidden_dim(width, 4, like=4, pooling="query"))
    assert size(matched) == pytest.approx(size(MotionEncoder(4, width, width)), rel=0.03)


def test_clips_take_turns_and_those_to_ask_about_are_others():
    train, asked = world.train_clips(WORLD, 0), world.asked_clips(WORLD, 0)
    categories = [clip.item.category for clip in train]
    assert categories[:5] == categories[6:11] == WORLD.categories and {categories[5], categories[11]} <= set(SIDES)
    assert [clip.item.category for clip in asked] == [name for name in (*WORLD.categories, *SIDES) for _ in range(2)]
    frames = [clip.render() for clip in (*train, *asked)]
    assert all(one.shape == (13, 64, 64, 3) for one in frames)
    assert not any(np.array_equal(one, other) for one in frames[:12] for other in frames[12:])
    again = world.train_clips(WORLD, 0)
    assert [clip.item for clip in again] == [clip.item for clip in train]
    assert np.array_equal(again[5].render(), frames[5])


def test_arms_pool_the_same_stored_features_as_those_of_the_frames():
    clips = world.train_clips(WORLD, 0)[4:6]  # two movers, and a cut
    config = VariantsConfig(arms={"a": ArmConfig(), "b": ArmConfig()}, tokeniser={"token_dim": 96})
    frames = torch.from_numpy(np.stack([clip.render() for clip in clips])).permute(0, 1, 4, 2, 3)
    for settings in ({}, {"residual_grid": 4}, {"strategy": "vtok-cuts", "max_key_frames": 2}):
        tokeniser = build_tokeniser(arm.model_of(config, ArmConfig(settings)).tokeniser)
        whole = tokeniser.features(frames)
        grids = world.grids_of(tokeniser.feature_extractor, clips)
        tokeniser.feature_extractor = StoredGrids(96)
        stored = tokeniser.features(grids)
        assert stored.token_counts == whole.token_counts
        torch.testing.assert_close(stored.spatial, whole.spatial, atol=2e-2, rtol=0)
        torch.testing.assert_close(stored.motion, whole.motion, atol=2e-2, rtol=0)


def test_the_interval_is_that_of_seeds_and_questions():
    """Only seeds differ: Student's interval over them. Only questions differ: theirs, with the seeds' quantile."""
    ours, theirs = [[1] * 10, [1] * 10, [1] * 5 + [0] * 5], [[0] * 10, [0] * 10, [0] * 5 + [0] * 5]
    estimate = paired_difference(ours, theirs)
    assert estimate.mean == pytest.approx(25 / 30)
    same = paired_difference([[1, 0, 1, 1]] * 3, [[0, 0, 0, 1]] * 3)
    error = np.std([1, 0, 1, 0], ddof=1) / 2
    assert same.high - same.mean == pytest.approx(4.3027 * error, rel=1e-4) and same.text == "+50.0 ± 124.2"
    seeds = paired_difference([[1] * 4, [0] * 4, [1] * 4], [[0] * 4] * 3)
    assert seeds.high - seeds.mean == pytest.approx(4.3027 * np.std([1, 0, 1], ddof=1) / 3**0.5, rel=1e-4)
    assert paired_difference(theirs, theirs) == (0, 0, 0, "0.0 ± 0.0")


def test_results_are_read_as_they_were_written_and_make_the_tables(tmp_path):
    results = Results("a command", ["motion", "motion", "after_cut", "after_cut"], [0.25, 0.25, 0.5, 0.5])
    results.tokens, results.g_phi = {"vtok": [28, 28, 28, 28], "other": [28, 28, 44, 44]}, {"vtok": 1000, "other": 1001}
    results.answers = {
        "vtok": {0: Answers([1, 0, 0, 1], 0.5), 1: Answers([1, 0, 0, 1], 0.25)},
        "other": {0: Answers([1, 1, 0, 1], 0.5), 1: Answers([1, 1, 0, 1], 0.5)},
    }
    write_results(results, tmp_path / "results.jsonl")
    assert read_results(tmp_path) == results
    text = report.write(tmp_path, load_variants(VARIANTS, "smoke"), results).read_text()
    assert "| other | 1,001 | 28.0 | 44.0 | 2 | 100.0 | 50.0 | 75.0 |" in text
    assert "| *chance* | | | | | 25.0 | 50.0 | 37.5 |" in text
    assert "| other | 2 | +50.0 ±" in text and "4 runs are done, 10 are still to come" in text


@pytest.mark.skipif(not PUBLISHED.exists(), reason="not published yet")
def test_published_results_make_the_published_report(tmp_path):
    shutil.copy(PUBLISHED / "results.jsonl", tmp_path)
    main(["--profile", "cpu", "--report", str(tmp_path)])
    assert (tmp_path / "report.md").read_text() == (PUBLISHED / "report.md").read_text()


def test_a_study_needs_something_to_compare():
    with pytest.raises(ConfigError, match="two arms"):
        VariantsConfig(arms={"vtok": ArmConfig()})


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, monkeypatch):
    """It is stopped in its third step of four, after a state was saved."""
    monkeypatch.setattr("pipelines.shapes_study.fitting.SAVE_SECONDS", -1)
    config = load_variants(VARIANTS, "smoke")
    encoder = build_feature_extractor(VTokConfig(weights=world.ENCODER))
    with torch.no_grad():
        grids = world.grids_of(encoder, world.train_clips(config.world, config.seed))
    settings, found = config.arms["query over 4 x 4 cells"], []
    for name, stopped in (("whole", False), ("cut", True)):
        (tmp_path / name).mkdir()
        if stopped:
            with monkeypatch.context() as context:
                steps = iter(range(9))
                real = arm.VTokFramework.forward

                def failing(*given):
                    if next(steps) == 2:
                        raise KeyboardInterrupt
                    return real(*given)

                context.setattr(arm.VTokFramework, "forward", failing)
                with pytest.raises(KeyboardInterrupt):
                    arm.train(tmp_path / name, config, settings, grids, seed=1)
        found.append(arm.train(tmp_path / name, config, settings, grids, seed=1))
    assert found[0].losses == found[1].losses and len(found[0].losses) == 4
    one, other = (run.framework.state_dict() for run in found)
    assert all(torch.equal(one[name], other[name]) for name in one)
