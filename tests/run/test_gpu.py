"""What only a GPU can show of a run: bf16, CUDA's random state, and sums whose order its threads decide."""

import shutil

import pytest
import torch

from pipelines.engine.loading.prefetch import on_device
from support.launch import checked, python
from support.runs import log_of, make_shards, options, without_rates

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


def test_batches_copied_ahead_are_the_same_batches():
    """Each is used long enough for the next one's copy to overtake it, if it could."""
    whole = [torch.full((1 << 22,), float(number)).pin_memory() for number in range(6)]
    device, sums = torch.device("cuda", 0), []
    for batch in on_device(iter(whole), device):
        torch.cuda._sleep(50_000_000)
        sums.append(batch.sum())
    assert [float(value) / (1 << 22) for value in sums] == list(range(6))


def test_a_resumed_run_on_a_gpu_repeats_the_log_to_the_last_digit(tmp_path):
    shards = make_shards(tmp_path)
    command = ("pipelines/train.py", "--config", "pipelines/configs/tiny.yaml", "--train.deterministic", "true")
    whole = options(shards, tmp_path / "whole", steps=6, every=3)
    checked(python(*command, *whole, CUDA_VISIBLE_DEVICES="0"))
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed/checkpoints/step_00000006")
    checked(python(*command, *options(shards, tmp_path / "resumed", steps=6, every=3), CUDA_VISIBLE_DEVICES="0"))
    logs = [without_rates(log_of(tmp_path / name)) for name in ("whole", "resumed")]
    assert logs[0] == logs[1] and len(logs[0]) == 6
    assert log_of(tmp_path / "whole")[-1]["gpu_allocated_gb"] > 0
