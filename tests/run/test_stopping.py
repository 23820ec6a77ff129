"""Asked to stop, a run saves and ends with 75; its launcher gone, or a rank, none of its processes stays."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from signal import SIG_IGN, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1, signal

import psutil
import pytest

from data_tools.processes.child import FORK
from pipelines.engine.loading.workers import read_ahead
from pipelines.engine.ports import free_port
from pipelines.engine.run_control import STOPPED, Stopper, end_children, leave
from support import runs
from support.ends import wait_for
from support.launch import REPO, environment


class Hanging:
    """A dataset of which all but the first sample take for ever."""

    def __len__(self):
        return 100

    def __getitem__(self, position):
        time.sleep(1000 * position)
        return position


def steps(dataset, tell) -> None:
    """What a training run does around its steps, without a model."""
    os.setsid()
    stopper = Stopper("vtok-train")
    with stopper.deferred():
        for (step,) in read_ahead(dataset, ([position] for position in range(len(dataset))), 1, list):
            if step == 0:
                tell.send("ready")
            if stopper.requested():
                tell.send(stopper.wanted)
                break
    end_children()
    leave(STOPPED)


def loading(tell) -> None:
    Stopper("vtok-train")
    tell.send("ready")
    time.sleep(100)


@pytest.fixture
def begin():
    """Starts one of these in a process of its own and gives the process, its children, and where it tells of itself."""
    begun = []

    def begin(function, *arguments):
        told, tell = FORK.Pipe(duplex=False)
        process = FORK.Process(target=function, args=(*arguments, tell))
        process.start()
        begun.append(process)
        assert told.poll(60) and told.recv() == "ready"
        return process, psutil.Process(process.pid).children(), told

    yield begin
    for process in begun:
        process.kill()


@pytest.mark.parametrize("number", [SIGUSR1, SIGTERM, SIGINT, SIGHUP])
def test_a_signal_to_all_processes_of_a_run_is_heeded_at_the_end_of_a_step(number, begin):
    process, _, told = begin(steps, range(10**6))
    os.killpg(process.pid, number)  # the loader process too
    process.join(20)
    assert process.exitcode == 75 and told.recv() == number.name


def under_nohup(dataset, tell) -> None:
    signal(SIGHUP, SIG_IGN)
    steps(dataset, tell)


def test_a_run_under_nohup_outlives_its_terminal(begin):
    process, _, told = begin(under_nohup, range(10**6))
    os.killpg(process.pid, SIGHUP)
    process.join(2)
    assert process.is_alive() and not told.poll()


def test_a_second_interrupt_ends_the_run_at_once_with_its_loader_processes(begin):
    process, loaders, _ = begin(steps, Hanging())
    os.kill(process.pid, SIGINT)
    process.join(1)
    assert process.is_alive() and len(loaders) == 1
    os.kill(process.pid, SIGINT)
    process.join(10)
    assert process.exitcode == 128 + SIGINT
    assert not psutil.wait_procs(loaders, timeout=10)[1]


def test_a_killed_rank_takes_its_loader_processes_with_it(begin):
    process, loaders, _ = begin(steps, Hanging())
    process.kill()
    assert loaders and not psutil.wait_procs(loaders, timeout=10)[1]


@pytest.mark.parametrize("number, code", [(SIGUSR1, 75), (SIGTERM, 128 + SIGTERM), (SIGHUP, 128 + SIGHUP)])
def test_before_the_first_step_there_is_nothing_to_wait_for(number, code, begin):
    process, *_ = begin(loading)
    os.kill(process.pid, number)
    process.join(10)
    assert process.exitcode == code


def test_a_rank_that_stops_because_of_another_says_so(monkeypatch, capsys):
    monkeypatch.setattr("pipelines.engine.distributed.reduce_over_ranks", lambda values, operation: values + 1)
    stopper = Stopper("vtok-train")
    try:
        assert stopper.requested() and stopper.begun
    finally:
        stopper.dismiss()
    assert "another rank was asked to stop: this step is the last" in capsys.readouterr().err


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return runs.make_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture
def start():
    """Starts a command of ours in a session of its own, as a terminal or Slurm would; what is left of it is killed."""
    started = []

    def start(*arguments, output=subprocess.DEVNULL, **changes) -> subprocess.Popen:
        process = subprocess.Popen(
            list(map(str, arguments)), cwd=REPO, env=environment(**changes), stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, SIGKILL)


@pytest.fixture
def launch(start, shards):
    """Starts two ranks under the deepspeed launcher; returns when three steps of a thousand are done."""

    def launch(output) -> subprocess.Popen:
        port = ("--master_port", free_port())
        command = ("deepspeed", "--num_gpus", 2, *port, "pipelines/train.py", "--config", runs.CONFIG)
        run = start(*command, *runs.options(shards, output, steps=1000, every=1000))
        wait_for(lambda: runs.steps_done(output) >= 3 or run.poll() is not None, 300)
        assert run.poll() is None and len(runs.processes(output)) == 6  # command, launcher, ranks, their loaders
        return run

    return launch


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [SIGTERM, *(pytest.param(number, marks=pytest.mark.long) for number in (SIGINT, SIGKILL))]
)
def test_no_process_stays_when_the_launcher_is_ended_and_the_run_is_saved(number, launch, tmp_path):
    output = tmp_path / "out"
    run = launch(output)
    run.send_signal(number)
    wait_for(lambda: not runs.processes(output), 120)
    assert run.wait(0) == -number
    assert saved_steps(output) == [runs.steps_done(output)]


@pytest.mark.long
def test_ctrl_c_saves_and_no_process_stays(launch, tmp_path):
    output = tmp_path / "out"
    run = launch(output)
    os.killpg(run.pid, SIGINT)
    wait_for(lambda: not runs.processes(output), 120)
    assert run.wait(0) != 0
    assert saved_steps(output) == [runs.steps_done(output)]


@pytest.mark.slow
def test_a_rank_that_hangs_is_an_error_when_the_time_is_up(start, shards, tmp_path):
    options = (*runs.options(shards, tmp_path / "out", steps=1000, every=1000), "--train.timeout_minutes", "0.2")
    port = str(free_port())
    here, there = (
        start(
            sys.executable, "pipelines/train.py", "--config", runs.CONFIG, *options,
            output=(tmp_path / f"{rank}.txt").open("w"),
            RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank in range(2)
    )  # fmt: skip
    wait_for(lambda: runs.steps_done(tmp_path / "out") >= 2 or here.poll() is not None, 300)
    there.send_signal(SIGSTOP)
    assert here.wait(12 + 30) == 1
    told = (tmp_path / "0.txt").read_text()
    (line,) = [line for line in told.splitlines() if ": error: " in line]
    assert (
        re.search(r"rank 0 on \S+, in step \d+, [\w ]+, lost another rank", line)
        and "Timed out waiting 12000ms" in line
    )
    assert re.search(r"rank 1 does not answer, it was on \S+, process \d+, in step \d+", line)
    record = json.loads((tmp_path / "out/flight_recorder/rank_00000.json").read_text())
    assert record["entries"][-1]["profiling_name"].startswith("gloo:")
    assert "Traceback" not in told


def saved_steps(output) -> list[int]:
    return sorted(int(marker.parent.name.removeprefix("step_")) for marker in output.glob("checkpoints/*/COMPLETE"))
