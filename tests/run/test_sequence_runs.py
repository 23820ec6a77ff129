"""Runs whose ranks share samples: batches and curve are those of one rank, also if another split resumes them."""

import json
import shutil
from functools import partial

import pytest

from pipelines.cli.parsing import load_config
from support import runs
from support.commands import called
from support.launch import assert_user_error, checked
from support.runs import log_of, make_shards

SETTINGS = (
    "--train.max_steps", 4, "--train.global_batch_size", 4, "--train.micro_batch_size", 2, "--data.seconds", 1,
    "--checkpoint.every", 2, "--checkpoint.keep", 9, "--validation.every", 4, "--validation.samples", 3,
    "--validation.captions", 0, "--validation.denoising_steps", 2,
)  # fmt: skip
LOSSES = ("loss", "loss_under", "loss_vis_lm", "loss_dec")
SHARED = ("--train.sequence_parallel", 2)
LAST = "checkpoints/step_00000004"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data"), 10)


@pytest.fixture(scope="module")
def train(shards):
    """Trains on ten clips, and validates on the same."""
    return partial(runs.started, (*SETTINGS, "--validation.shards", shards), shards)


@pytest.fixture(scope="module")
def one_rank(train, tmp_path_factory):
    output = tmp_path_factory.mktemp("one") / "out"
    checked(train(output))
    return output


@pytest.fixture(scope="module")
def shared(ranks, train, tmp_path_factory):
    """Two ranks share all samples."""
    output = tmp_path_factory.mktemp("shared") / "out"
    checked(train(output, *SHARED, start=ranks.run))
    return output


def validated(output):
    return [json.loads(line) for line in (output / "validation.jsonl").read_text().splitlines()]


def assert_same_curve(output, expected):
    for ours, theirs in zip(log_of(output), log_of(expected), strict=True):
        assert ours["batch_digest"] == theirs["batch_digest"]
        for name in (*LOSSES, "grad_norm", "ema_distance"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), (ours["step"], name)
    (ours,), (theirs,) = validated(output), validated(expected)
    assert ours["digest"] == theirs["digest"] and ours["samples"] == 3
    assert all(ours[name] == pytest.approx(theirs[name], rel=1e-4) for name in LOSSES)


@pytest.mark.slow
def test_two_ranks_that_share_samples_have_the_curve_of_one(one_rank, shared):
    assert_same_curve(shared, one_rank)
    assert load_config(shared / "config.yaml").train.sequence_parallel == 2


@pytest.mark.long
def test_two_groups_of_two_ranks_have_the_curve_of_one(ranks, train, one_rank, tmp_path):
    checked(train(tmp_path / "out", *SHARED, start=partial(ranks.run, ranks=4)))
    assert_same_curve(tmp_path / "out", one_rank)


@pytest.mark.slow
@pytest.mark.parametrize(
    "before, count, options",
    [
        ("shared", 1, ()),
        *(pytest.param(*one, marks=pytest.mark.long) for one in (("shared", 2, ()), ("one_rank", 2, SHARED))),
    ],
)
def test_a_run_goes_on_under_another_split(ranks, train, one_rank, tmp_path, request, before, count, options):
    output = tmp_path / "out"
    shutil.copytree(request.getfixturevalue(before), output)
    shutil.rmtree(output / LAST)
    (output / "validation.jsonl").unlink()
    start = called if count == 1 else ranks.run
    checked(train(output, *options, "--resume", "auto", start=start))
    assert_same_curve(output, one_rank)


def test_what_cannot_be_shared_is_one_line(train, tmp_path):
    output = tmp_path / "out"
    assert_user_error(train(output, *SHARED), "train.sequence_parallel 2 does not divide the number of ranks, 1")
    assert_user_error(train(output, "--train.sequence_parallel", 0), "train.sequence_parallel must be at least 1")
    assert not output.exists()
