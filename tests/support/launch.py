"""Running our commands as a user would start them, in processes of their own, on the CPU.

Half of a short command's time is its imports, and ``deepspeed`` makes two processes of its own before the ranks. So
most tests call a command (``commands.py``) or have it run by ranks that stay (``ranks.py``). A launch is for what only
a launch shows: the launchers themselves, signals, exit codes, memory and time of a process, another environment.
"""

import os
import subprocess
import sys
from pathlib import Path

from pipelines.engine.ports import free_port

REPO = Path(__file__).resolve().parents[2]
ENVIRONMENT = dict(
    HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="",
    OMP_NUM_THREADS="1", TORCHINDUCTOR_COMPILE_THREADS="1",  # no thread pools, with which one must not fork
)  # fmt: skip


def environment(**changes: str) -> dict[str, str]:
    """That of our commands."""
    # A virtual environment that is used without being activated: its console scripts stand beside its python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return ours | ENVIRONMENT | {"PATH": path} | changes


def run(*command, timeout: float = 300, **changes) -> subprocess.CompletedProcess:
    """Run a command from the repository's root; its output is text."""
    return subprocess.run(
        list(map(str, command)), cwd=REPO, timeout=timeout, text=True, capture_output=True, env=environment(**changes)
    )


def deepspeed(ranks: int, script: str | Path, *arguments, **options) -> subprocess.CompletedProcess:
    """Run a script on several ranks with the deepspeed launcher; options are those of :func:`run`."""
    return run("deepspeed", "--num_gpus", ranks, "--master_port", free_port(), script, *arguments, **options)


def python(script: str | Path, *arguments, **options) -> subprocess.CompletedProcess:
    """Run a script; options are those of :func:`run`."""
    return run(sys.executable, script, *arguments, **options)


def checked(result: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    """The result, if it succeeded."""
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result


def assert_user_error(result: subprocess.CompletedProcess, *parts: str) -> None:
    """Exit code 2, one line that starts with a program's name and 'error:', no traceback."""
    assert result.returncode == 2, (result.returncode, result.stdout[-2000:], result.stderr[-2000:])
    assert "Traceback" not in result.stderr + result.stdout
    lines = [line for line in result.stderr.splitlines() if ": error: " in line]
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0], (part, lines[0])
