"""Running our commands and several ranks of a script, as a user would, on the CPU."""

import os
import socket
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
ENVIRONMENT = dict(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")


def environment(**changes: str) -> dict[str, str]:
    """That of our commands."""
    # A virtual environment that is used without being activated: its console scripts stand beside its python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return dict(os.environ) | ENVIRONMENT | {"PATH": path} | changes


def run(*command, timeout: float = 300, **changes) -> subprocess.CompletedProcess:
    """Run a command from the repository's root; its output is text."""
    return subprocess.run(
        list(map(str, command)), cwd=REPO, timeout=timeout, text=True, capture_output=True, env=environment(**changes)
    )


def deepspeed(ranks: int, script: str | Path, *arguments, **options) -> subprocess.CompletedProcess:
    """Run a script on several ranks with the deepspeed launcher."""
    port = ("--master_port", free_port())
    return run("deepspeed", "--num_gpus", ranks, *port, script, *arguments, **options)


def python(script: str | Path, *arguments, **options) -> subprocess.CompletedProcess:
    return run(sys.executable, script, *arguments, **options)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


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
