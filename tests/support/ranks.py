"""Processes that stay, and are the ranks of one run after another: their imports are paid for once.

    Ranks.run(train.main, "--config", ...) --pipe--> each rank: main(argv) --pipe--> exit code, output

What only a launch shows (the launcher's output, signals, the end of a dead rank) is not tested with them.
"""

import gc
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from time import monotonic

from support.commands import called, environment_of
from support.launch import REPO, environment, free_port

Program = Callable[[list[str]], None] | Path


class Ranks:
    """Two processes, which are started when they are first needed, and anew after a run that failed."""

    def __init__(self):
        self._started: list[tuple[subprocess.Popen, Connection]] = []

    def run(self, program: Program, *arguments, ranks: int = 2, timeout: float = 600) -> subprocess.CompletedProcess:
        """Run a command's ``main``, or a script, as a launcher would on one or two ranks.

        Returns:
            The first exit code that is not 0; the output of one rank after the other.

        Raises:
            subprocess.TimeoutExpired: it took longer than ``timeout`` seconds; the processes have been killed.
        """
        if not self._started:
            self._started = [start() for _ in range(2)]
        connections, port = [connection for _, connection in self._started[:ranks]], free_port()
        for rank, connection in enumerate(connections):
            names = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=ranks, LOCAL_SIZE=ranks, MASTER_PORT=port)
            told = {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
            connection.send((program, list(map(str, arguments)), told))
        answers = self._answers(connections, timeout)
        code = next((answer.returncode for answer in answers if answer.returncode), 0)
        if code not in (0, 2):  # 2: what a user can mend
            self.close()
        stdout, stderr = ("".join(getattr(answer, name) for answer in answers) for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([program, *arguments], code, stdout, stderr)

    def _answers(self, connections: list[Connection], timeout: float) -> list[subprocess.CompletedProcess]:
        """One a rank."""
        answers, latest = {}, monotonic() + timeout
        while missing := [connection for connection in connections if connection not in answers]:
            ready = wait(missing, max(0, latest - monotonic()))
            if not ready:
                self.close()
                raise subprocess.TimeoutExpired("ranks", timeout)
            for connection in ready:
                try:
                    answers[connection] = connection.recv()
                except EOFError:
                    answers[connection] = subprocess.CompletedProcess([], -1, "", "the process has died\n")
        return [answers[connection] for connection in connections]

    def close(self) -> None:
        """Kill the processes."""
        for process, connection in self._started:
            process.kill()
            process.wait()
            connection.close()
        self._started = []


def start() -> tuple[subprocess.Popen, Connection]:
    """A rank's process, and the pipe on which it is told what to run."""
    ours, theirs = Pipe()
    paths = os.pathsep.join((str(REPO), str(REPO / "tests")))
    process = subprocess.Popen(
        [sys.executable, "-m", "support.ranks", str(theirs.fileno())],
        cwd=REPO, env=environment(PYTHONPATH=paths), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
    )  # fmt: skip
    theirs.close()
    return process, ours


def serve(connection: Connection) -> None:
    """One rank: run what comes, until nobody is left who could send more."""
    import deepspeed

    while True:
        try:
            program, arguments, told = connection.recv()
        except EOFError:
            return

        def main(argv: list[str], program=program) -> None:
            try:
                program(argv) if callable(program) else run_script(program, argv)
            except Exception:
                traceback.print_exc()
                sys.exit(1)
            finally:
                if deepspeed.comm.is_initialized():
                    deepspeed.comm.destroy_process_group()

        with environment_of(os.environ | told):
            connection.send(called(main, *arguments))
        gc.collect()


def run_script(script: Path, argv: list[str]) -> None:
    """What ``python SCRIPT *argv`` does, in this process."""
    sys.argv = [str(script), *argv]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
