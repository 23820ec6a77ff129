"""What ``loss.dec_every`` costs under ZeRO-3."""

import json

import pytest

from support.launch import REPO, checked


@pytest.mark.slow
def test_steps_with_and_without_the_decoder_in_turn_gather_as_much_as_each_kind_alone(ranks, tiny_models):
    """On two ranks, from the second step of a kind on; with one trace for both kinds it was 90 and 61 gathers."""
    result = checked(ranks.run(REPO / "tests/support/trace_worker.py", tiny_models))
    found = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))
    always, turns, one_trace = (found[name] for name in ("every step", "every second", "every second, one trace"))
    _, with_decoder = always["gathers"]
    assert turns["gathers"][2] == with_decoder <= 42
    assert turns["gathers"][3] < with_decoder
    assert one_trace["gathers"][2] > 2 * turns["gathers"][2] and one_trace["gathers"][3] > 2 * turns["gathers"][3]
    assert turns["losses"] == one_trace["losses"]
