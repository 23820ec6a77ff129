"""A run killed in the middle of an epoch, resumed on another number of ranks: the batches are those of a quiet run."""

import json
import os
import signal
import subprocess
import time

import pytest

from data_tools.build import build_shards
from data_tools.shapes import render_clips
from support.launch import ENVIRONMENT, REPO, checked, free_port, python

pytestmark = pytest.mark.slow

RUN = (
    "pipelines/train.py", "--config", "pipelines/configs/tiny.yaml", "--ds_config", "deepspeed_configs/zero3.json",
    "--data.seconds", "1", "--train.max_steps", "16", "--train.global_batch_size", "4", "--checkpoint.every", "3",
)  # fmt: skip


def digests(output):
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 17))
    return [line["batch_digest"] for line in lines]


def test_killed_on_two_ranks_resumed_on_one(tmp_path):
    render_clips(tmp_path / "clips", 22, seed=5)
    build_shards(tmp_path / "clips", tmp_path / "shards", samples_per_shard=5, progress=False)
    data = ("--data.shards", str(tmp_path / "shards"), "--output")
    command = ["deepspeed", "--num_gpus", "2", "--master_port", str(free_port()), *RUN, *data, str(tmp_path / "out")]
    run = subprocess.Popen(
        command, cwd=REPO, env=dict(os.environ) | ENVIRONMENT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    log, give_up = tmp_path / "out" / "log.jsonl", time.monotonic() + 240
    while not log.exists() or log.read_text().count("\n") < 8:
        assert run.poll() is None and time.monotonic() < give_up
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert log.read_text().count("\n") < 16

    checked(python(*RUN, *data, tmp_path / "out", "--resume", "auto"))
    checked(python(*RUN, *data, tmp_path / "quiet"))
    assert digests(tmp_path / "out") == digests(tmp_path / "quiet")
