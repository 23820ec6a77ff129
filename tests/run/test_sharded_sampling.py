import pytest

from support.launch import REPO, checked, deepspeed


@pytest.mark.slow
def test_sampling_and_answering_inside_a_zero3_engine_equal_the_unsharded_model(tiny_models):
    """On two ranks, between two training steps, which they leave undisturbed."""
    result = checked(deepspeed(2, REPO / "tests/support/generate_worker.py", tiny_models))
    assert result.stdout.count("samples agree") == 2
