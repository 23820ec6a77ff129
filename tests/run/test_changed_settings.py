"""What a run that goes on says about its settings."""

import pytest

from pipelines.cli.config_files import save_config
from pipelines.cli.parsing import parse_run_arguments
from pipelines.engine.changed_settings import MOST, changes, resumed_lines


def config_of(*options):
    given = ("--train.max_steps", "4", "--data.shards", "x", *options)
    return parse_run_arguments(list(map(str, given))).config


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint's configuration."""
    save_config(config_of("--train.schedule", "cosine"), tmp_path / "config.yaml")
    return tmp_path


def lines(checkpoint, *options):
    return resumed_lines(config_of(*options), checkpoint, 4)


def test_the_same_settings_are_one_line(checkpoint):
    assert lines(checkpoint, "--train.schedule", "cosine") == [f"goes on from step 4 of {checkpoint}"]


def test_each_setting_that_differs_is_named_with_both_values(checkpoint):
    first, *named = lines(checkpoint, "--train.lr", 1e-3, "--train.ema_decay", "null", "--data.seconds", 3)
    assert first.startswith(f"goes on from step 4 of {checkpoint}, with settings that differ")
    settings = [line.split(": ")[0].strip() for line in named]
    assert settings == ["data.seconds", "train.ema_decay", "train.lr", "train.schedule"]
    assert (
        named[1].endswith(" -> null") and named[2].endswith(" -> 0.001") and named[3].endswith(": cosine -> constant")
    )


def test_another_end_of_a_schedule_is_told(checkpoint):
    assert lines(checkpoint, "--train.schedule", "cosine", "--train.max_steps", 9)[1:] == [
        "  train.max_steps: 4 -> 9 (the cosine schedule ends there)"
    ]


def test_long_lists_and_values_are_cut(checkpoint):
    many = [f"--validation.{name}" for name in ("samples", "captions", "videos", "every")]
    many += [
        f"--train.{name}" for name in ("warmup_steps", "max_grad_norm", "weight_decay", "lr", "calibration_batches")
    ]
    many += ["--checkpoint.every", "--checkpoint.keep", "--seed"]
    told = lines(checkpoint, *(word for name in many for word in (name, 77)), "--data.shards", "y" * 99)
    assert (
        len(told) == MOST + 2
        and told[-1] == f"  and {len(many) + 2 - MOST} more"
        and all(len(line) < 160 for line in told[1:])
    )


def test_a_setting_that_only_one_version_knows_is_no_change():
    assert changes({"old": 1, "a": {"b": [1]}}, {"new": 2, "a": {"b": [2]}}) == [("a.b", [1], [2])]


def test_a_checkpoint_without_a_configuration_is_one_line(tmp_path):
    assert len(lines(tmp_path, "--train.lr", 1)) == 1
