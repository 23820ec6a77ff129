"""What becomes of a run's loader processes and of the samples they cannot read."""

import faulthandler
import json
import multiprocessing
import os
import signal
import tempfile
import time

import pytest
import torch

from data_tools.errors import DataError
from data_tools.processes.child import FORK
from pipelines.engine.loading.bad_samples import BadSamples
from pipelines.engine.loading.workers import LoaderError, read_ahead, require_socket
from support.ends import kill_myself, leave, sleep_for_ever
from vtok.config import ConfigError


class Clips:
    """As much of a ClipDataset as loader processes need; position 5 has a fate of its own.

    Args:
        fate: Called when position 5 is read, for as long as its clip does not count as bad.
    """

    def __init__(self, fate):
        self.fate, self.crashes, self.reader = fate, {}, self

    def __getitem__(self, position):
        if position != 5:
            return position
        if not self.crashes.get(5):
            self.fate()
        return 500  # the substitute's

    def key(self, row):
        return f"key-{row}"

    def row(self, position):
        return position + 100


def unreadable():
    raise DataError("position 5: none of 8 clips can be read")


def bus_error():
    faulthandler.disable()  # pytest's would fill the screen
    os.kill(os.getpid(), signal.SIGBUS)


def loaders():
    """The loader processes of this process, which may have other children."""
    children = [process for process in multiprocessing.active_children() if isinstance(process, FORK.Process)]
    return sorted(children, key=lambda process: process.pid)


def in_pairs():
    return ([position, position + 1] for position in range(0, 20, 2))


@pytest.mark.parametrize("fate, how", [(kill_myself, "SIGKILL"), (leave, "exit code 0")])
def test_a_process_that_dies_is_replaced_and_a_clip_that_kills_two_has_a_substitute(fate, how, capfd):
    taken = sum(read_ahead(Clips(fate), in_pairs(), 2, list), [])
    assert taken == [500 if position == 5 else position for position in range(20)]
    told = f"warning: rank 0: a loader process died (the process ended with {how}) at position 5, clip key-105: "
    assert [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning")] == [
        told + "it is read again",
        told + "a substitute takes its place",
    ]
    assert not loaders()


def stop_myself():
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize("fate", [sleep_for_ever, stop_myself])
def test_a_process_that_hangs_is_replaced_within_a_limit_and_named(fate, capfd):
    taken = sum(read_ahead(Clips(fate), in_pairs(), 2, list, patience=0.6), [])
    assert taken == [500 if position == 5 else position for position in range(20)]
    told = "warning: rank 0: a loader process hangs (no progress for 0.6 s) at position 5, clip key-105: "
    assert [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning")] == [
        told + "it is read again",
        told + "a substitute takes its place",
    ]
    assert not loaders()


def test_a_process_that_hangs_between_two_samples_is_replaced(capfd):
    batches = read_ahead(Clips(lambda: None), in_pairs(), 1, list, patience=0.6)
    taken = next(batches)
    (process,) = loaders()
    os.kill(process.pid, signal.SIGSTOP)
    assert sum(batches, taken) == [500 if position == 5 else position for position in range(20)]
    assert "hangs (no progress for 0.6 s)" in capfd.readouterr().err


def test_a_slow_process_that_goes_on_is_left_alone(capfd):
    clips = Clips(lambda: time.sleep(0.5))
    taken = sum(read_ahead(clips, in_pairs(), 2, list, patience=5), [])
    assert taken == [500 if position == 5 else position for position in range(20)]
    assert "warning" not in capfd.readouterr().err


def test_a_process_killed_by_chance_costs_no_sample():
    """At every point of the run one of the processes is killed."""
    batches = read_ahead(Clips(lambda: None), in_pairs(), 3, list)
    taken = []
    for number, batch in enumerate(batches):
        taken += batch
        if living := loaders():
            living[number % len(living)].kill()
    assert taken == [500 if position == 5 else position for position in range(20)]


def test_processes_that_die_between_two_samples_end_the_run_at_the_third_in_a_row(capfd):
    with pytest.raises(LoaderError) as caught:
        list(read_ahead(Clips(lambda: None), in_pairs(), 1, lambda items: kill_myself()))
    assert str(caught.value).startswith(
        "3 loader processes in a row ended between two samples (the process ended with SIGKILL): "
    )
    assert capfd.readouterr().err.count("between two samples: another one goes on") == 2
    assert not loaders()


@pytest.fixture
def long_tmpdir(tmp_path, monkeypatch):
    """A folder for temporary files in which no socket has room for its name."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setitem(multiprocessing.current_process()._config, "tempdir", None)


def test_a_folder_in_which_tensors_cannot_be_handed_over_is_one_line(long_tmpdir, capfd):
    with pytest.raises(ConfigError, match=r"\(AF_UNIX path too long\): set TMPDIR to a folder with a short path"):
        require_socket()
    with pytest.raises(LoaderError, match=r"\(OSError: AF_UNIX path too long\): set TMPDIR to a folder"):
        list(read_ahead(Clips(lambda: None), in_pairs(), 1, lambda items: torch.zeros(3)))
    assert capfd.readouterr().err == "" and not loaders()


def test_a_full_shared_memory_is_named():
    with pytest.raises(LoaderError, match="ended with a bus error: /dev/shm is full"):
        list(read_ahead(Clips(bus_error), in_pairs(), 1, list))


def test_other_errors_pass_unchanged():
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(Clips(lambda: 1 // 0), in_pairs(), 1, list))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_sample_is_one_line_without_a_traceback(workers, capfd):
    batches = read_ahead(Clips(unreadable), in_pairs(), workers, list)
    assert [next(batches) for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(LoaderError) as caught:
        next(batches)
    assert str(caught.value) == "position 5: none of 8 clips can be read"
    assert not capfd.readouterr().err


def test_bad_samples_are_counted_on_after_resuming(tmp_path):
    bad = BadSamples(tmp_path, max_share=0.003, step=0)
    bad.record(3, [(10, "a", "corrupt"), (11, "b", "corrupt")])
    assert bad.record(7, [(30, "c", "corrupt")]) == 3
    resumed = BadSamples(tmp_path, max_share=0.003, step=5)
    assert resumed.record(6, []) == 2
    assert [json.loads(line)["key"] for line in resumed.path.read_text().splitlines()] == ["a", "b"]
    resumed.record(6, [(25, "d", "corrupt"), (26, "e", "corrupt")])
    resumed.check(2000)
    with pytest.raises(DataError, match="4 of 100 samples could not be read.*the latest are a, b, d, e"):
        resumed.check(100)
    assert BadSamples(tmp_path, max_share=1, step=0).record(1, []) == 0  # a run that begins anew
