import pytest

from support.launch import REPO, checked


@pytest.mark.slow
@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.long), 2])
def test_ema_and_checkpoints_are_the_same_under_every_way_to_shard(ranks, tiny_models, tmp_path, count):
    """Stage 3 sharded and persistent, stage 2, offload: each goes on from the checkpoint that the last one wrote."""
    worker = REPO / "tests/support/ema_worker.py"
    result = checked(ranks.run(worker, tiny_models, tmp_path, ranks=count, timeout=900))  # offload is compiled at first
    assert result.stdout.count("agrees") == 4 * count
