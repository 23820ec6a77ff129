"""Processes that may die: they answer, raise, crash and hang as their function does, and leave nobody behind."""

import gc
import os
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import pytest

from data_tools.errors import DataError
from data_tools.processes.child import Child, ChildDied, ChildTimedOut, Undelivered, in_children
from data_tools.video.encode import encode_mp4
from support.ends import kill_myself, leave, sleep_for_ever, wait_for


def test_a_child_answers_raises_and_dies_as_its_function_does():
    child = Child(lambda number: 1 // number)
    child.send(1)
    assert child.receive() == 1
    child.send(0)
    with pytest.raises(ZeroDivisionError):
        child.receive()
    child.send(1)
    assert child.receive(timeout=5) == 1
    child.close()

    with pytest.raises(ChildTimedOut, match="no end after 0.1 s"):
        asked(sleep_for_ever).receive(timeout=0.1)
    with pytest.raises(ChildDied, match="exit code 0"):
        asked(leave).receive()
    with pytest.raises(ChildDied, match="SIGKILL"):
        asked(kill_myself).receive()


def test_a_child_whose_answer_nobody_reads_ends_silently(capfd):
    """So does that of a killed parent, whose end resets the connection."""
    child = Child(lambda number: number)
    child.send(1)
    assert child.connection.poll(10)
    child.connection.close()
    child._process.join(10)
    assert child._process.exitcode == 0 and capfd.readouterr().err == ""


class Unpicklable(Exception):
    def __reduce__(self):
        raise FileNotFoundError("no folder for it")  # as an end of the connection, but it is none


def test_a_child_tells_that_its_answer_cannot_be_sent_and_goes_on():
    def answer(number):
        if number == 2:
            raise Unpicklable("bad clip")
        return Unpicklable() if number else 0

    child = Child(answer)
    for number in (1, 2, 0):
        child.send(number)
    with pytest.raises(Undelivered, match="^FileNotFoundError: no folder for it$"):
        child.receive(10)
    with pytest.raises(Undelivered, match="^Unpicklable: bad clip$"):
        child.receive(10)
    assert child.receive(10) == 0
    child.close()


def asked(function):
    child = Child(lambda _: function())
    child.send(None)
    return child


def test_the_first_error_ends_the_other_children(tmp_path):
    def work(number):
        if number == 1:
            raise DataError("no")
        time.sleep(1000)

    start = time.monotonic()
    with pytest.raises(DataError, match="no"):
        list(in_children(work, range(5), 3, tick=0.1))
    assert time.monotonic() - start < 30


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_children_end_with_their_parent(tmp_path):
    def parent():
        child = Child(lambda _: (tmp_path / "pid").write_text(str(os.getpid())) and time.sleep(1000))
        child.send(None)
        time.sleep(1000)

    process = get_context("fork").Process(target=parent)
    process.start()
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    process.kill()
    process.join()
    wait_for(lambda: not is_running(int((tmp_path / "pid").read_text())))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_no_forked_process_frees_its_parent_s_decoders(tmp_path):
    """A decoder that decodes with threads waits for them when it is freed, and a forked process has none."""
    (tmp_path / "clip.mp4").write_bytes(encode_mp4(np.zeros((9, 64, 64, 3), np.uint8), 8, 18))
    gc.collect()
    gc.disable()
    try:
        decode_and_forget(tmp_path / "clip.mp4")
        forked = get_context("fork").Process(target=gc.collect)
        forked.start()
        forked.join(20)
        assert forked.exitcode == 0
    finally:
        forked.kill()
        gc.enable()


def decode_and_forget(clip: Path):
    file = av.open(str(clip))
    stream = file.streams.video[0]
    stream.thread_type, stream.codec_context.thread_count = "FRAME", 4
    next(file.decode(stream))
    circle = [file, stream]
    circle.append(circle)
