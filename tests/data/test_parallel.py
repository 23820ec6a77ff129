"""Work in several processes: the results of one, in order; a process that dies is one clear line."""

import os

import pytest

from data_tools.errors import DataError
from data_tools.processes.parallel import in_processes


def square(number):
    return number * number


def fail(number):
    raise DataError(f"no {number}")


def die(number):
    os._exit(1)


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_results_come_in_order(workers):
    assert list(in_processes(square, range(20), workers)) == [n * n for n in range(20)]
    assert list(in_processes(square, [], workers)) == []
    with pytest.raises(DataError, match="no 0"):
        list(in_processes(fail, range(3), workers))


def test_a_worker_that_dies_is_told():
    with pytest.raises(DataError, match="a worker process died"):
        list(in_processes(die, range(3), 2))


def test_no_workers_do_no_work():
    with pytest.raises(DataError, match="at least 1"):
        list(in_processes(square, range(3), 0))
