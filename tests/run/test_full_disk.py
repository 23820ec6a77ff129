"""A disk that is full when a checkpoint is due: it is tried again while training goes on, or gone without."""

import errno
import threading
import time
from pathlib import Path

import pytest

from pipelines.engine import loop, ownership, stepping
from pipelines.engine.saving import persistent, writing
from pipelines.engine.saving.folders import complete, step_of
from support import runs
from support.launch import assert_user_error, checked
from vtok.config import ConfigError


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_a_full_disk_refuses_is_tried_again_and_told_once(capsys, monkeypatch):
    monkeypatch.setattr(persistent, "PAUSE", 0.01)
    tries = iter([full, full, lambda: "written"])
    assert persistent.until_written(lambda: next(tries)(), "step 4", threading.Event()) == "written"
    assert capsys.readouterr().err.splitlines() == [
        "warning: rank 0 cannot write step 4 (No space left on device): it tries again every 0.01 s",
        "rank 0 has written step 4",
    ]


def test_the_last_try_begins_at_once(monkeypatch):
    last, tries = threading.Event(), []

    def write():
        tries.append(time.monotonic())
        threading.Timer(0.05, last.set).start()
        full()

    started = time.monotonic()
    with pytest.raises(OSError, match="No space left"):
        persistent.until_written(write, "step 4", last)
    assert len(tries) == 2 and time.monotonic() - started < persistent.PAUSE


def test_an_error_that_is_not_of_the_disk_is_raised_at_once():
    with pytest.raises(ZeroDivisionError):
        persistent.until_written(lambda: 1 // 0, "step 4", threading.Event())


def test_a_folder_on_a_full_disk_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("os.write", full)
    with pytest.raises(ConfigError, match=r"cannot write to --output \S+run: No space left on device"):
        ownership.own(tmp_path / "run")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return runs.make_shards(tmp_path_factory.mktemp("data"), clips=5)


@pytest.fixture
def run(shards, tmp_path, monkeypatch):
    """Trains for six steps, each with a checkpoint, on a disk that is full when the steps in question are saved."""
    settings = ("--train.global_batch_size", 1, "--train.calibration_batches", 1,
                "--data.workers", 0, "--data.seconds", 1, "--checkpoint.every", 1,
                "--resume", "auto")  # fmt: skip
    monkeypatch.setattr(persistent, "PAUSE", 0.05)
    monkeypatch.setattr(loop, "AT_END", 0.2)
    write = writing.write_slices

    def start(refused: dict[int, int], steps: int = 6, keep: int = 9):
        left, more = dict(refused), ("--train.max_steps", steps, "--checkpoint.keep", keep)

        def on_disk(path: Path, *arguments) -> None:
            step = step_of(path.parent)
            left[step] = left.get(step, 0) - 1
            full() if left[step] >= 0 else write(path, *arguments)

        monkeypatch.setattr(writing, "write_slices", on_disk)
        return runs.started(settings, shards, tmp_path / "out", *more)

    return start


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_moment_costs_at_most_a_checkpoint(run, tmp_path):
    result = checked(run({2: 1, 4: 10**9}))
    assert [step_of(folder) for folder in complete(tmp_path / "out")] == [1, 2, 3, 5, 6]
    assert "step_00000002 (No space left on device): it tries again" in result.stderr
    assert "step_00000004 could not be written (No space left on device): make room; " in result.stderr
    assert "step_00000003 is complete: --resume auto goes on from there (1 of 3 in a row end the run)" in result.stderr
    assert not list((tmp_path / "out/checkpoints").glob("step_00000004*"))


@pytest.mark.long
def test_while_steps_are_dropped_no_checkpoint_goes(run, tmp_path, monkeypatch):
    def dropped(engine, batches, plan, with_decoder):
        step = stepping.train_step(engine, batches, plan, with_decoder)
        return step._replace(applied=(False,))

    checked(run({}, steps=3, keep=1))
    assert [step_of(folder) for folder in complete(tmp_path / "out")] == [3]
    monkeypatch.setattr("pipelines.vtok_training.run.train_step", dropped)
    checked(run({}, keep=1))
    assert [step_of(folder) for folder in complete(tmp_path / "out")] == [3, 4, 5, 6]


@pytest.mark.slow
def test_three_in_a_row_end_the_run_and_so_does_the_last(run, tmp_path):
    for refused, reached in ((range(2, 5), 1), (range(6, 7), 5)):
        result = run(dict.fromkeys(refused, 10**9))
        assert result.returncode == 74 and "Traceback" not in result.stderr
        (line,) = [line for line in result.stderr.splitlines() if ": error: " in line]
        assert f"step_{reached:08d} is complete: --resume auto goes on from there" in line
    checked(run({}))
    assert [step_of(folder) for folder in complete(tmp_path / "out")] == list(range(1, 7))


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_start_is_one_line(run, monkeypatch):
    with monkeypatch.context() as disk:
        disk.setattr("pathlib.Path.rename", full)
        assert_user_error(run({}), "cannot write", "out/config.yaml: No space left on device: make room")
    checked(run({}))
