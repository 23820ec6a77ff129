"""Runs that are killed, and resumed, on as many ranks or on fewer: their curve is that of an undisturbed run."""

import json
import os
import signal
import subprocess

import pytest

from pipelines.engine.ports import free_port
from support import runs
from support.ends import wait_for
from support.launch import REPO, checked, deepspeed, environment, python

pytestmark = pytest.mark.long
STEPS, EVERY = 9, 3


def test_a_rank_killed_at_a_random_moment():
    """The whole run ends with it, and resumed on as many ranks gives the same log to the last digit."""
    moments = ("killed", "killed_in_step", "killed_in_save")
    result = checked(python("pipelines/bench.py", "chaos", "--minutes", 0, "--only", *moments, timeout=900))
    found = json.loads(result.stdout[result.stdout.index("\n{") :])
    assert found["kinds"] == {moment: {"tried": 1, "equal": 1} for moment in moments}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return runs.make_shards(tmp_path_factory.mktemp("data"))


def command(shards, output):
    return ("pipelines/train.py", "--config", runs.CONFIG, *runs.options(shards, output, STEPS, EVERY))


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    checked(deepspeed(2, *command(shards, output)))
    return runs.without_rates(runs.log_of(output))


@pytest.mark.parametrize(
    "whole, options",
    [
        (True, ()),
        (False, ()),
        (False, ("--train.sequence_parallel", "2")),
    ],
)
def test_one_or_all_of_two_ranks_killed_and_resumed_on_one(whole, options, shards, undisturbed, tmp_path):
    """Under the deepspeed launcher none of their processes stays. The ranks may share samples."""
    output = tmp_path / "out"
    run = subprocess.Popen(
        ["deepspeed", "--num_gpus", "2", "--master_port", str(free_port()), *command(shards, output), *options],
        cwd=REPO, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: runs.steps_done(output) >= 5 or run.poll() is not None, 300)
    assert run.poll() is None
    if whole:
        os.killpg(run.pid, signal.SIGKILL)
    else:
        runs.ranks(output)[1].kill()
    run.wait()
    wait_for(lambda: not runs.processes(output), 60)
    assert runs.steps_done(output) < STEPS

    checked(python(*command(shards, output)))
    for ours, theirs in zip(runs.log_of(output), undisturbed, strict=True):
        assert ours["batch_digest"] == theirs["batch_digest"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
