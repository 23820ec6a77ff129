"""Which rank makes the others wait, and which one is gone."""

import re

import pytest
from torch.distributed import HashStore

from pipelines.engine import distributed, roll_call
from pipelines.engine.watching.slow_ranks import PATIENCE, SlowRanks, columns
from support.launch import REPO, checked


def test_a_rank_is_slow_after_many_steps_in_a_row_and_told_once():
    slow = SlowRanks(["n1", "n1", "n2"])
    assert [slow.check([1.0, 1.1, 1.4], 1.5) for _ in range(PATIENCE - 1)] == [None] * (PATIENCE - 1)
    told = slow.check([1.0, 1.1, 1.4], 1.5)
    assert told == (
        "warning: rank 2 on n2 is slow: in 20 steps in a row the others wait for it; in this one 1.40 s are its own, "
        "1.05 s another rank's (median)"
    )
    assert slow.check([1.0, 1.1, 1.4], 1.5) is None
    assert slow.check([1.0, 1.1, 1.1], 1.5) == "rank 2 on n2 is no longer slow"
    assert slow.check([1.0, 1.1, 1.1], 1.5) is None


def test_ranks_that_are_slow_in_turn_are_not_told_of():
    slow = SlowRanks(["n1", "n2"])
    assert not any(slow.check([1.0, 2.0] if step % 3 else [2.0, 1.0], 2.0) for step in range(5 * PATIENCE))
    assert not any(SlowRanks(["n1"]).check([1.0], 1.0) for _ in range(2 * PATIENCE))


def test_one_rank_has_no_columns():
    assert columns([1.0]) == {}
    assert columns([1.0, 3.0, 2.0])["slowest_rank"] == 1


def test_the_seconds_of_a_rank_are_those_in_which_it_does_not_wait(ranks):
    result = checked(ranks.run(REPO / "tests/support/waiting_worker.py"))
    waited = {int(rank): float(seconds) for rank, seconds in re.findall(r"RANK (\d) WAITED (\S+)", result.stdout)}
    assert waited[0] > waited[1] + 0.5  # rank 1 works for a second


@pytest.fixture
def roll(tmp_path, monkeypatch):
    """Ranks in one store."""
    store, made = HashStore(), []
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    monkeypatch.setattr(roll_call, "PATIENCE", 1.0)
    roll_call.doing("before the first step")  # and not what an earlier run in this process did last

    def rank(number: int) -> roll_call.RollCall:
        monkeypatch.setattr(distributed, "rank", lambda: number)
        made.append(roll_call.RollCall(store, store))
        made[-1].folder = tmp_path
        return made[-1]

    yield rank
    for one in made:
        one.end()


def test_the_roll_call_names_the_rank_that_does_not_answer_and_what_it_did(roll, tmp_path):
    first, second, third = map(roll, range(3))
    third.note("in step 17, waiting for data")
    third.end()
    told = r"rank 2 does not answer, it was on \S+, process \d+, in step 17, waiting for data"
    assert re.fullmatch(told, second.called())
    assert first.called() is None  # rank 1 reports
    assert (tmp_path / "flight_recorder/rank_00001.json").exists()


def test_all_ranks_that_answer_say_what_they_do(roll):
    first, *_ = map(roll, range(3))
    told = first.called()
    assert told.startswith("all ranks answer: rank 0 is on ") and told.count("before the first step, after ") == 3


def test_a_rank_that_reports_its_own_error_is_not_reported(roll):
    first, second, _ = map(roll, range(3))
    second.leave()
    assert first.called() is None
