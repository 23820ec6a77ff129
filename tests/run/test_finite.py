"""Losses and gradients that are not finite: the step is dropped on all ranks and leaves no trace; many end the run."""

import json
import math

import pytest
import torch

from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from data_tools.shards import ShardReader
from pipelines import train
from pipelines.engine.finite import DroppedSteps, finite_on_all_ranks
from support.commands import called
from support.launch import REPO, assert_user_error, checked
from vtok.config import ConfigError


@pytest.mark.slow
@pytest.mark.parametrize(
    "cases",
    [
        ("zero3.json:fp32", "zero2.json:fp32"),
        pytest.param(("zero3.json:bf16", "zero2.json:bf16", "zero3_offload.json:fp32"), marks=pytest.mark.long),
    ],
)
def test_a_dropped_step_leaves_no_trace(ranks, tiny_models, cases):
    """Two ranks, two micro-batches a step; rank 1's first or second has a loss of NaN or inf, or an inf gradient."""
    result = checked(ranks.run(REPO / "tests/support/finite_worker.py", tiny_models, *cases))
    for case in cases:
        assert result.stdout.count(f"{case} leaves no trace") == 2


@pytest.mark.slow
def test_many_steps_in_a_row_end_the_run_with_the_samples_of_the_last(tmp_path):
    """A learning rate that takes the weights out of range at the first update."""
    render_clips(tmp_path / "clips", 4, seed=3)
    build_shards(tmp_path / "clips", tmp_path / "shards", progress=False)
    run = ("--config", "pipelines/configs/tiny.yaml", "--train.lr", 1e30, "--train.warmup_steps", 0,
           "--train.global_batch_size", 4, "--train.max_nonfinite_steps", 2, "--data.seconds", 1, "--data.workers", 0,
           "--data.shards", tmp_path / "shards", "--output", tmp_path / "out")  # fmt: skip
    keys = [ShardReader(tmp_path / "shards").key(row) for row in range(4)]
    assert_user_error(called(train.main, *run), "not finite in 2 steps in a row", "train.lr", *keys)
    text = (tmp_path / "out/log.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    log = [json.loads(line) for line in text.splitlines()]
    assert [line["skipped"] for line in log] == [0, 1, 2]
    assert log[0]["loss"] > 0 and log[2]["loss"] is None and log[2]["grad_norm"] is None


def test_a_step_that_is_applied_starts_the_count_anew():
    steps = DroppedSteps(most=2)
    for keys in (["a"], [], ["b"], []):
        steps.check(keys)
    steps.check(["c"])
    with pytest.raises(ConfigError, match="2 steps in a row.*: d, e$"):
        steps.check(["d", "e"])


@pytest.mark.parametrize("loss", [1.25, math.nan, math.inf])
def test_a_loss_stays_to_the_last_bit_or_becomes_nan(loss):
    value = torch.tensor(loss, requires_grad=True)
    agreed = finite_on_all_ranks(value)
    agreed.backward()
    if math.isfinite(loss):
        assert agreed == loss and value.grad == 1
    else:
        assert agreed.isnan() and value.grad.isnan()
