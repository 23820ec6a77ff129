"""The helpers of other tests: commands in this process, and ranks that stay."""

import os
import signal
import sys
import threading

import numpy
import pytest
import torch

from pipelines.engine import distributed
from pipelines.engine.run_control import Stopper
from support.commands import called
from support.launch import assert_user_error, checked

SUM = """
import os, sys
import torch
from pipelines.engine import distributed

distributed.connect()
print(os.environ["RANK"], sys.argv[1:], distributed.reduce_over_ranks(torch.tensor(1.0 + distributed.rank())).item())
"""

SAME_ERROR = """
from pipelines.engine.program import run_program
from vtok.config import ConfigError


def train(arguments, stopper):
    raise ConfigError("set lr")


run_program("x", None, train)
"""

KEEP = """
import mmap, os, sys

print(os.getpid())
if gigabytes := int(sys.argv[1]):
    sys.kept = mmap.mmap(-1, gigabytes << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
"""


def test_a_rank_s_script_has_its_own_group_arguments_and_output(ranks, tmp_path):
    (tmp_path / "sum.py").write_text(SUM)
    for count, total in ((2, 3.0), (1, 1.0), (2, 3.0)):
        told = checked(ranks.run(tmp_path / "sum.py", "--x", 1.5, ranks=count)).stdout.splitlines()
        assert told == [f"{rank} ['--x', '1.5'] {total}" for rank in range(count)]


def test_a_rank_that_fails_ends_the_others_and_the_next_run_has_new_ones(ranks, tmp_path):
    """Rank 1 raises or dies, while rank 0 waits for it."""
    for end, code in (("raise ValueError('bad')", 1), ("os._exit(7)", 7)):
        (tmp_path / "end.py").write_text(SUM + f"if os.environ['RANK'] == '1': {end}\ndistributed.barrier()")
        result = ranks.run(tmp_path / "end.py", timeout=300)
        assert result.returncode == code, end
        assert ("ValueError: bad" in result.stderr) == ("bad" in end)
    (tmp_path / "end.py").write_text(SUM)
    checked(ranks.run(tmp_path / "end.py"))


def test_ranks_that_keep_too_many_addresses_are_replaced(ranks, tmp_path):
    """At first the script keeps nothing; then 1 GB, as an engine does; then 9 GB that it never writes."""
    (tmp_path / "keep.py").write_text(KEEP)
    processes = [checked(ranks.run(tmp_path / "keep.py", gigabytes)).stdout for gigabytes in (0, 1, 9, 0)]
    assert processes[0] == processes[1] == processes[2] != processes[3]


def test_an_error_of_all_ranks_is_said_once_in_each_run(ranks, tmp_path):
    """By the first rank that asks; the same processes say it again in their next run."""
    (tmp_path / "end.py").write_text(SAME_ERROR)
    for _ in range(2):
        assert_user_error(ranks.run(tmp_path / "end.py"), "x: error: set lr")


def test_a_called_command_s_end_is_an_exit_code_and_leaves_no_draws():
    def command(argv):
        print(argv, numpy.random.rand(), torch.rand(()))
        print("aside", file=sys.stderr)
        sys.exit(int(argv[0]))

    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    result = called(command, 3)
    assert (result.returncode, result.stderr) == (3, "aside\n") and result.stdout.startswith("['3']")
    assert torch.rand(()) == expected
    with pytest.raises(ZeroDivisionError):
        called(lambda argv: 1 / 0)


def test_a_stopper_that_is_dismissed_gives_the_signals_back():
    before, threads = signal.getsignal(signal.SIGTERM), threading.active_count()
    stopper = Stopper("x")
    assert signal.getsignal(signal.SIGTERM) is not before
    stopper.dismiss()
    assert signal.getsignal(signal.SIGTERM) is before and signal.set_wakeup_fd(-1) == -1
    for thread in threading.enumerate():
        if thread.name == "stop requests":
            thread.join(5)
    assert threading.active_count() == threads


def test_one_rank_without_a_launcher_leaves_no_group_and_no_environment():
    before = dict(os.environ)
    for _ in range(2):
        with distributed.connected():
            assert torch.distributed.is_initialized() and os.environ["RANK"] == "0"
        assert not torch.distributed.is_initialized() and dict(os.environ) == before
