import pytest

from support.launch import REPO, checked, deepspeed


@pytest.mark.parametrize("ranks, accumulation", [(1, 1), (2, 1), (2, 2)])
def test_zero3_gradients_equal_the_reference(tiny_models, ranks, accumulation):
    """1 rank x 4, 2 x 2, 2 x 1 x (accumulate 2): the same gradient, parameter by parameter."""
    result = checked(deepspeed(ranks, REPO / "tests/support/gradient_worker.py", tiny_models, accumulation))
    assert result.stdout.count("gradients agree") == ranks
