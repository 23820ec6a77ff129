"""Runs that are killed, and resumed, on as many ranks or on fewer: their curve is that of an undisturbed run."""

import os
import random
import signal
import subprocess

import pytest

from pipelines.engine.ports import free_port
from run import kill_many
from support import runs
from support.ends import wait_for
from support.launch import REPO, checked, environment, python

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return runs.make_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    return kill_many.undisturbed(shards, tmp_path_factory.mktemp("undisturbed") / "out")


@pytest.mark.parametrize("moment", kill_many.MOMENTS)
def test_a_rank_killed_at_a_random_moment(moment, shards, undisturbed, tmp_path):
    """The whole run ends with it, and resumed on as many ranks gives the same log to the last digit."""
    print(kill_many.kill_and_resume(moment, random.Random(moment), shards, tmp_path / "out"))
    assert runs.without_rates(runs.log_of(tmp_path / "out")) == undisturbed


def test_all_of_two_ranks_killed_and_resumed_on_one(shards, undisturbed, tmp_path):
    output = tmp_path / "out"
    command = kill_many.command(shards, output)
    run = subprocess.Popen(
        ["deepspeed", "--num_gpus", "2", "--master_port", str(free_port()), *command],
        cwd=REPO, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: runs.steps_done(output) >= 5 or run.poll() is not None, 300)
    assert run.poll() is None
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert runs.steps_done(output) < kill_many.STEPS

    checked(python(*command))
    digests = [line["batch_digest"] for line in runs.log_of(output)]
    assert digests == [line["batch_digest"] for line in undisturbed]
