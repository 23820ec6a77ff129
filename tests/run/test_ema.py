import pytest

from support.launch import REPO, checked, deepspeed


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ema_and_checkpoints_are_the_same_under_every_way_to_shard(tiny_models, tmp_path, ranks):
    """Stage 3 sharded and persistent, stage 2, offload: each goes on from the checkpoint that the last one wrote."""
    worker = REPO / "tests/support/ema_worker.py"
    result = checked(deepspeed(ranks, worker, tiny_models, tmp_path, timeout=900))  # offload is compiled at first
    assert result.stdout.count("agrees") == 4 * ranks
