"""Locks between processes: one holder at a time; a holder that dies lets go."""

import time
from multiprocessing import get_context

from data_tools.locks import locked


def hold(path, held):
    with locked(path):
        held.set()
        time.sleep(1000)


def test_a_lock_has_one_holder_and_is_free_again_when_that_one_is_killed(tmp_path):
    fork, path = get_context("fork"), tmp_path / "lock"
    held = fork.Event()
    holder = fork.Process(target=hold, args=(path, held))
    holder.start()
    try:
        assert held.wait(30)
        with locked(path, wait=False) as mine:
            assert mine is False
    finally:
        holder.kill()
        holder.join()
    with locked(path) as mine:
        assert mine is True
    with locked(path, wait=False) as mine:
        assert mine is True
