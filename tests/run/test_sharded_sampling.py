import pytest

from support.launch import REPO, checked


@pytest.mark.slow
def test_sampling_and_answering_inside_a_zero3_engine_equal_the_unsharded_model(ranks, tiny_models):
    """On two ranks, between two training steps, which they leave undisturbed."""
    result = checked(ranks.run(REPO / "tests/support/generate_worker.py", tiny_models))
    assert result.stdout.count("samples agree") == 2
