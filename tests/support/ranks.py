"""Processes that stay, and are the ranks of one run after another.

    Ranks.run(train.main, "--config", ...) --pipe--> each rank: main(argv) --pipe--> exit code, output

A fork server makes them: it imports torch, DeepSpeed and transformers once, and a rank that it forks has them at once.
What only a launch shows (the launcher's output, signals, the end of a dead rank) is not tested with them.
"""

import os
import subprocess
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic, sleep

import psutil

from pipelines.benchmarks.forked import LIBRARIES, SERVER, environment_of_rank
from pipelines.engine.ports import free_port
from support.commands import environment_of
from support.launch import REPO, environment
from support.rank import STACK_SIGNAL, serve, stack_file

Program = Callable[[list[str]], None] | Path
GRACE_SECONDS = 60
# An engine that a script does not take apart keeps its untouched buffer of 2 GB. The kernel merges them, and refuses to
# fork a process with a mapping that is larger than the machine's memory.
MOST_ADDRESSES = 8 << 30
SERVER.set_forkserver_preload(["support.rank", LIBRARIES])


class Ranks:
    """The processes, which are started when they are first needed, and anew after a run that failed or left much.

    Each number of ranks has its own: DeepSpeed's collectives in shared memory keep the number of their first run.
    """

    def __init__(self):
        self._started: dict[int, list[tuple[BaseProcess, Connection]]] = {}

    def run(self, program: Program, *arguments, ranks: int = 2, timeout: float = 600) -> subprocess.CompletedProcess:
        """Run a command's ``main``, or a script, as a launcher would on its ranks.

        Returns:
            The exit code of the first rank that failed, or 0; the output of one rank after the other.

        Raises:
            TimeoutError: The ranks took longer than ``timeout`` seconds, or the others did not end within
                ``GRACE_SECONDS`` after one had failed. The message says what each of them was doing. They are killed.
        """
        if ranks not in self._started:
            self._started[ranks] = [start() for _ in range(ranks)]
        used, port = self._started[ranks], free_port()
        for rank, (_, connection) in enumerate(used):
            connection.send((program, list(map(str, arguments)), environment_of_rank(rank, ranks, port)))
        ends = self._ends(timeout, ranks)
        code = next((end.returncode for end in ends.values() if end.returncode), 0)
        # Ranks that failed may have stopped at different places: DeepSpeed's counters of modules then differ.
        if code or any(psutil.Process(process.pid).memory_info().vms > MOST_ADDRESSES for process, _ in used):
            self.close()
        stdout, stderr = ("".join(getattr(ends[rank], name) for rank in range(ranks)) for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([program, *arguments], code, stdout, stderr)

    def _ends(self, timeout: float, ranks: int) -> dict[int, subprocess.CompletedProcess]:
        """Rank -> its end, the first first."""
        ends, latest = {}, monotonic() + timeout
        waiting = {connection: rank for rank, (_, connection) in enumerate(self._started[ranks])}
        while waiting:
            ready = wait(list(waiting), max(0, latest - monotonic()))
            if not ready:
                doing = [f"rank {rank} still runs:\n{self._stack(ranks, rank)}" for rank in waiting.values()]
                failed = [f"rank {rank} failed:\n{end.stderr}" for rank, end in ends.items() if end.returncode]
                self.close()
                raise TimeoutError("\n".join(failed + doing))
            for connection in ready:
                rank = waiting.pop(connection)
                try:
                    ends[rank] = connection.recv()
                except EOFError:
                    process = self._started[ranks][rank][0]
                    process.join()
                    code = process.exitcode
                    ends[rank] = subprocess.CompletedProcess([], code, "", f"rank {rank} ended with {code}\n")
                if ends[rank].returncode:
                    latest = min(latest, monotonic() + GRACE_SECONDS)
        return ends

    def _stack(self, ranks: int, rank: int) -> str:
        """What a rank's threads are doing."""
        process = self._started[ranks][rank][0]
        os.kill(process.pid, STACK_SIGNAL)
        sleep(1)
        path = stack_file(process.pid)
        return path.read_text() if path.exists() else "it does not answer"

    def close(self) -> None:
        """Kill the processes."""
        for process, connection in sum(self._started.values(), []):
            process.kill()
            process.join()
            connection.close()
            stack_file(process.pid).unlink(missing_ok=True)
        self._started = {}


def start() -> tuple[BaseProcess, Connection]:
    """A rank's process, and the pipe on which it is told what to run."""
    ours, theirs = Pipe()
    process = SERVER.Process(target=serve, args=(theirs,))
    paths = os.pathsep.join((str(REPO), str(REPO / "tests")))
    with environment_of(environment(PYTHONPATH=paths)):  # the fork server keeps that of its start
        process.start()
    theirs.close()
    return process, ours
