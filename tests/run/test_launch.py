"""A forked command is what the same command is in a process of its own."""

import json
import subprocess
import time

import psutil
import pytest

from support.launch import checked, deepspeed, python

PROBE = r"""
import atexit, json, os, signal, sys, threading
atexit.register(print, "the end")
signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)
found = dict(
    name=__name__, main=sys.modules["__main__"].__file__, argv=sys.argv, path=sys.path, folder=os.getcwd(),
    handlers=[str(signal.getsignal(number)) for number in signals], threads=threading.active_count(),
    masked=str(signal.pthread_sigmask(signal.SIG_BLOCK, [])), environment=dict(os.environ),
)
sys.stdout.write(json.dumps(found) + "\n")  # at once, among other ranks' lines
sys.stdout.flush()
print("aside", file=sys.stderr)
threading.Thread(target=lambda: [threading.main_thread().join(), print("a thread's end")]).start()
"""
ENDS = (
    "pass", "sys.exit()", "sys.exit(3)", "sys.exit('no')", "raise ValueError('bad')", "os._exit(7)",
    "os.kill(os.getpid(), signal.SIGKILL)",
)  # fmt: skip
OF_RANKS = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE", "MASTER_ADDR",
            "CUDA_VISIBLE_DEVICES"}  # fmt: skip


@pytest.fixture
def script(tmp_path):
    def script(text):
        (tmp_path / "script.py").write_text(text)
        return tmp_path / "script.py"

    return script


def found_by(result):
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("end", ENDS)
def test_a_forked_command_begins_and_ends_as_a_fresh_one(script, end):
    probe = script(PROBE + end)
    fresh, forked = (python(probe, "--x", 1.5, fresh=fresh) for fresh in (True, False))
    assert forked.returncode == fresh.returncode
    assert forked.stdout.splitlines()[1:] == fresh.stdout.splitlines()[1:]
    assert [forked.stderr.splitlines()[i] for i in (0, -1)] == [fresh.stderr.splitlines()[i] for i in (0, -1)]
    ((ours,), (theirs,)) = (found_by(result) for result in (forked, fresh))
    environment, path = theirs.pop("environment"), theirs.pop("path")  # to both of which imports add
    assert ours.pop("environment").items() >= environment.items() and ours.pop("path")[: len(path)] == path
    assert ours == theirs and ours["argv"] == [str(probe), "--x", "1.5"]


def test_forked_ranks_are_told_what_the_launcher_tells_its_processes(script):
    probe = script(PROBE)
    both = [found_by(checked(deepspeed(2, probe, "--x", fresh=fresh))) for fresh in (True, False)]
    told = [
        [(rank["argv"], {name: rank["environment"][name] for name in OF_RANKS}) for rank in ranks] for ranks in both
    ]
    fresh, forked = (sorted(ranks, key=str) for ranks in told)
    assert forked == fresh and forked[1][0] == [str(probe), "--local_rank=1", "--x"]


def test_a_rank_that_fails_ends_the_others_and_gives_its_exit_code(script):
    started = time.monotonic()
    result = deepspeed(2, script("import os, time\nif os.environ['RANK'] == '1': raise SystemExit(3)\ntime.sleep(250)"))
    assert result.returncode == 3 and time.monotonic() - started < 60


def test_what_takes_too_long_is_killed_with_all_it_started(script):
    text = "import os, subprocess, time\nprint(os.getpid(), subprocess.Popen(['sleep', '1000']).pid)\ntime.sleep(1000)"
    with pytest.raises(subprocess.TimeoutExpired) as expired:
        python(script(text), timeout=3)
    pids = list(map(int, expired.value.output.split()))
    assert len(pids) == 2 and not any(map(lives, pids))


def lives(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_forked_commands_have_seeds_of_their_own(script):
    draw = script("import random, numpy, torch\nprint(random.random(), numpy.random.rand(), torch.rand(()).item())")
    drawn = [number for _ in range(2) for number in checked(python(draw)).stdout.split()]
    assert len(set(drawn)) == 6


def test_another_environment_is_another_process(script):
    show = script("import os, sys\nprint(os.environ['OMP_NUM_THREADS'], 'torch' in sys.modules)")
    assert checked(python(show)).stdout == "1 True\n"
    assert checked(python(show, OMP_NUM_THREADS="2")).stdout == "2 False\n"
