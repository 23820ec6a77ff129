"""ZeRO-3's collectives after an update: the parameters that stay whole on every rank are gathered together."""

import json

from support.launch import REPO, checked


def test_an_update_gathers_small_parameters_with_one_collective_for_each_dtype(ranks, tiny_models):
    """On two ranks. DeepSpeed's own gathers each by itself; the values are the same."""
    result = checked(ranks.run(REPO / "tests/support/gathers_worker.py", tiny_models))
    found = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))
    assert found["parameters"] > 100 and found["padded"] > 0
    assert found["gathers"] == found["dtypes"]
    assert found["equal"] == {"together": True, "some alone": True}
