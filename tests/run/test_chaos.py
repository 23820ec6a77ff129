"""Runs that are killed, stopped and damaged at random end like an undisturbed one, or one line says why not."""

import json

import pytest

from pipelines.benchmarks.chaos import command
from pipelines.benchmarks.chaos.disturbances import KINDS
from support.launch import assert_user_error, checked, python


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--shared",)])
def test_runs_disturbed_in_each_way_end_like_an_undisturbed_one(options):
    """On two ranks, which may share each sample."""
    result = checked(python("pipelines/bench.py", "chaos", "--minutes", "0", *options, timeout=3600))
    found = json.loads(result.stdout[result.stdout.index("\n{") :])
    assert found["kinds"] == {kind: {"tried": 1, "equal": 1} for kind in sorted(KINDS)} and found["failed"] == []


def test_an_unknown_way_is_one_line():
    assert_user_error(python("pipelines/bench.py", "chaos", "--only", "killed", "flooded"), "unknown kinds flooded")


def test_what_is_wrong_with_an_end():
    line = "vtok-train: error: set lr"
    assert command.wrong_with([0, 0], []) == command.wrong_with([75, 75], []) == command.wrong_with([-9, 143], []) == []
    assert command.wrong_with([2, 2], [line]) == command.wrong_with([1, -9], [line]) == []
    assert command.wrong_with([74, 74], [line]) == []
    assert command.wrong_with([2, 2], [line, line]) and command.wrong_with([2, 2], [])  # twice, or never
    assert command.wrong_with([74, -15], [])
    assert command.wrong_with([1, -9], [])
    assert command.wrong_with([1, 1], ["Traceback (most recent call last):"])
