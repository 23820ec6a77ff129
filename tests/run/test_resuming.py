"""A run that is stopped where a validation is due makes it when it goes on; a finished one says that it is."""

import json
import shutil

import pytest

from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from pipelines import train
from pipelines.engine import program
from pipelines.engine.run_control import Stopper
from support.commands import called
from support.launch import assert_user_error, checked
from support.runs import log_of, without_rates

pytestmark = pytest.mark.slow


@pytest.fixture
def command(tmp_path):
    """Two steps, each with a validation; the run resumes itself."""
    render_clips(tmp_path / "clips", 8, seed=3)
    build_shards(tmp_path / "clips", tmp_path / "shards", val_share=0.5, progress=False)
    return (
        "--config", "pipelines/configs/tiny.yaml", "--data.shards", tmp_path / "shards/train", "--data.seconds", 1,
        "--data.workers", 0, "--train.max_steps", 2, "--train.global_batch_size", 2, "--train.calibration_batches", 1,
        "--validation.every", 1, "--validation.captions", 0, "--validation.videos", 0, "--validation.samples", 1,
        "--resume", "auto", "--output", tmp_path / "out",
    )  # fmt: skip


def steps_of(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def test_a_validation_that_a_stop_cut_off_is_made_up_for(command, tmp_path, monkeypatch):
    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(program, "leave", leave)
    log, validation = tmp_path / "out/log.jsonl", tmp_path / "out/validation.jsonl"
    with monkeypatch.context() as stopped:
        stopped.setattr(Stopper, "requested", lambda self: True)
        for step in (1, 2):
            assert called(train.main, *command).returncode == 75
            assert steps_of(log)[-1] == step and steps_of(validation) == list(range(1, step))
    ended = checked(called(train.main, *command))
    assert steps_of(validation) == [1, 2] and "is finished: it has taken step 2 of 2" in ended.stdout
    checked(called(train.main, *command))
    assert steps_of(validation) == [1, 2]
    grouped = called(train.main, *command, "--data.group_by_length", 4)
    assert_user_error(grouped, "its order is plain, this run's is data.group_by_length 4", "set these back")


def test_a_run_that_has_lost_its_checkpoints_starts_anew_and_keeps_its_logs(command, tmp_path):
    """As a job does that is queued again before its first checkpoint."""
    checked(called(train.main, *command))
    out, logs = tmp_path / "out", ("log.jsonl", "validation.jsonl")
    before = [(out / name).read_text() for name in logs]
    shutil.rmtree(out / "checkpoints")
    told = checked(called(train.main, *command, "--train.max_steps", 1)).stderr
    assert f"{out} has no complete checkpoint: the run starts at step 0" in told and "log.jsonl.aside, " in told
    assert [(out / f"{name}.aside").read_text() for name in logs] == before
    assert [steps_of(out / name) for name in logs] == [[1], [1]]


def test_a_bit_that_flipped_costs_the_run_one_checkpoint_and_the_curve_nothing(command, tmp_path):
    every = (*command, "--checkpoint.every", 1, "--checkpoint.keep", 9)
    checked(called(train.main, *every))
    expected = without_rates(log_of(tmp_path / "out"))
    damaged = tmp_path / "out/checkpoints/step_00000002/rank_00000.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    told = checked(called(train.main, *every)).stderr
    assert f"{damaged} has changed since it was written" in told and "taking the checkpoint before" in told
    assert without_rates(log_of(tmp_path / "out")) == expected
    names = sorted(path.name for path in (tmp_path / "out/checkpoints").iterdir())
    assert names == ["step_00000001", "step_00000002", "step_00000002.aside"]


def test_a_run_goes_on_from_the_step_that_a_user_names(command, tmp_path):
    every = (*command, "--checkpoint.every", 1, "--checkpoint.keep", 9)
    checked(called(train.main, *every))
    expected = without_rates(log_of(tmp_path / "out"))
    told = checked(called(train.main, *every, "--step", 1)).stdout
    assert f"goes on from step 1 of {tmp_path / 'out/checkpoints/step_00000001'}\n" in told
    assert "starting from" not in told and " -> " not in told
    assert without_rates(log_of(tmp_path / "out")) == expected
    changed = ("--train.lr", 1e-3, "--model.loss.vis_lm", 0, "--train.max_steps", 3)
    told = checked(called(train.main, *every, *changed)).stdout
    lines = told[told.index("goes on from step 2") :].splitlines()
    assert lines[0].endswith("with settings that differ from those it was trained with:")
    assert lines[1].startswith("  model.loss.vis_lm: 1.0 -> ") and lines[2].startswith("  train.lr: ")
    assert lines[2].endswith(" -> 0.001") and lines[3] == "  train.max_steps: 2 -> 3"
    assert_user_error(
        called(train.main, *every, "--step", 7), "no complete checkpoint of step 7; it has those of 1, 2, 3"
    )
