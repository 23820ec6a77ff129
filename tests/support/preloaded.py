"""A process that has imported what our commands import, and is forked for each of them: they start at once.

    Preloaded --words, files for the output--> server --fork--> a command, or DeepSpeed's launcher --fork--> ranks
              <------ process id, exit code --

A forked command has the arguments, folder, environment, output and end of ``python SCRIPT ARGUMENTS``, and random seeds
of its own. It shares with the others what their imports read from the environment, the seed of hashes, and pages of
memory.
"""

import base64
import gc
import json
import os
import runpy
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy
import psutil
import torch

COMMANDS = (
    "engine.program", "vtok_training.run", "vidtok_training.run", "engine.precomputing", "inference.understand",
    "inference.generate", "inference.export",
)  # fmt: skip


class Preloaded:
    """The server, which ends when we do; its commands have its folder and its environment."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self._connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())], cwd=folder, env=environment, pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()

    def run(self, ranks: int | None, words: list[str], timeout: float) -> subprocess.CompletedProcess:
        """Run a script with its arguments, by DeepSpeed's launcher where ranks are given; its output is text.

        Raises:
            subprocess.TimeoutExpired: it has been killed, with all that it had started.
        """
        with TemporaryDirectory() as folder:
            outputs = [Path(folder, name) for name in ("stdout", "stderr")]
            self._connection.send((ranks, words, outputs))
            pid = self._connection.recv()
            in_time = self._connection.poll(timeout)
            if not in_time:
                kill_tree(pid)
            code = self._connection.recv()
            texts = [path.read_text() for path in outputs]
        if not in_time:
            raise subprocess.TimeoutExpired(words, timeout, *texts)
        return subprocess.CompletedProcess(words, code, *texts)


def kill_tree(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (*process.children(recursive=True), process):
            one.kill()


def serve(connection: Connection) -> tuple[int | None, list[str]]:
    """Fork for each request. Only the forked process returns, with what it is to run."""
    while True:
        try:
            ranks, words, outputs = connection.recv()
        except EOFError:
            sys.exit()
        pid = os.fork()
        if pid == 0:
            connection.close()
            for number, path in enumerate(outputs, start=1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
            return ranks, words
        connection.send(pid)
        connection.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def run_script(words: list[str]) -> None:
    """In this process, what ``python *words`` does."""
    numpy.random.seed()  # anew, as Python's own generator does by itself after a fork
    torch.seed()
    sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
    runpy.run_path(words[0], run_name="__main__")


def launch(ranks: int, words: list[str]) -> None:
    """In this process, what the ``deepspeed`` command starts: DeepSpeed's own launcher, but its ranks are forked."""
    launcher, distributed = import_module("deepspeed.launcher.launch"), import_module("pipelines.engine.distributed")
    launcher.subprocess = SimpleNamespace(Popen=Rank)
    world = base64.urlsafe_b64encode(json.dumps({"localhost": [*range(ranks)]}).encode()).decode()
    sys.argv = [launcher.__file__, f"--world_info={world}", f"--master_port={distributed.free_port()}", *words]
    launcher.main()


class Rank:
    """A fork of the launcher, with what that needs of a ``Popen``."""

    def __init__(self, command: list[str], env: dict[str, str]):
        self.pid = os.fork()
        if self.pid == 0:
            os.environ.update(env)
            run_script(command[2:])  # without "python -u"
            sys.exit()

    def poll(self) -> int | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


if __name__ == "__main__":
    sys.path[0] = os.getcwd()
    for name in COMMANDS:
        import_module(f"pipelines.{name}")
    torch.compile(len)  # imports the compiler, as DeepSpeed does when it begins
    assert psutil.Process().num_threads() == 1, "a fork would lack the other threads"
    sys.stdout.reconfigure(line_buffering=True)
    gc.freeze()  # or the first collection would copy every page
    ranks, words = serve(Connection(int(sys.argv[1])))
    if ranks is None:
        run_script(words)
    else:
        launch(ranks, words)
