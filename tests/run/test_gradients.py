import pytest

from support.launch import REPO, checked, deepspeed


@pytest.mark.parametrize(
    "ranks, accumulation, checkpointing", [(1, 1, False), (2, 1, False), (2, 2, False), (2, 1, True)]
)
def test_zero3_gradients_equal_the_reference(tiny_models, ranks, accumulation, checkpointing):
    """1 rank x 4, 2 x 2, 2 x 1 x (accumulate 2), and 2 x 2 with gradient checkpointing in MLLM and decoder."""
    worker = REPO / "tests/support/gradient_worker.py"
    result = checked(deepspeed(ranks, worker, tiny_models, accumulation, checkpointing))
    assert result.stdout.count("gradients agree") == ranks
