"""A run's ranks, forked from a server that has imported all libraries: a rank costs no imports."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from pipelines.benchmarks.forked import LIBRARIES, SERVER, environment_of_rank, run_script
from pipelines.engine import loop
from pipelines.engine.ports import free_port
from pipelines.engine.saving import persistent
from pipelines.engine.watching.metrics import MEASURED

ROOT = Path(__file__).parents[3]
TRAIN = ROOT / "pipelines/train.py"
RANKS, STEPS, EVERY = 2, 6, 2
TIMEOUT_MINUTES = 1.0  # that a rank waits for the others
GRACE = 15.0  # seconds from the end of one rank until the others get TERM, and again until they are killed
FULL = 10.0  # seconds for which a run waits at its end for room on a full disk
LONGEST = 1200.0  # seconds after which a run counts as hung


def preload(folder: Path) -> None:
    """Compiles the faults, and has the server of ranks start with them.

    Raises:
        OSError: There is no C compiler.
    """
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    SERVER.set_forkserver_preload([__name__, LIBRARIES])
    own = {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    SERVER.Process(target=int).start()  # the server begins with the first process
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


class Ranks:
    """The ranks of one start of a run.

    Args:
        options: Options of the run, the data's among them.
        output: The run's folder.
        faults: Environment for ``faults.c``.
    """

    def __init__(self, options: list[str], output: Path, faults: dict[str, str] | None = None):
        self.output, self.started = output, time.monotonic()
        self.printed = Path(tempfile.mkdtemp(dir=output.parent, prefix="printed-"))
        argv = [
            "--config", "pipelines/configs/tiny.yaml", "--ds_config", "deepspeed_configs/zero3.json",
            *options, "--data.seconds", "1", "--train.global_batch_size", "4",
            "--train.max_steps", str(STEPS), "--checkpoint.every", str(EVERY), "--resume", "auto",
            "--train.timeout_minutes", str(TIMEOUT_MINUTES), "--train.calibration_batches", "1", "--data.workers", "1",
            "--output", str(output),
        ]  # fmt: skip
        port = free_port()
        self.processes: list[BaseProcess] = []
        for rank in range(RANKS):
            told = environment_of_rank(rank, RANKS, port) | (faults or {})
            process = SERVER.Process(target=serve, args=(argv, told, self.printed / str(rank)))
            process.start()
            self.processes.append(process)

    def steps(self) -> int:
        """Returns the number of logged steps."""
        return len(log_of(self.output))

    def saves(self) -> int:
        """Returns the number of checkpoints that have been begun."""
        return len(list(self.output.glob("checkpoints/*")))

    def alive(self) -> list[BaseProcess]:
        return [process for process in self.processes if process.is_alive()]

    def loaders(self) -> list[psutil.Process]:
        """Returns the loader processes of all ranks."""
        found = []
        for process in self.alive():
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(process.pid).children()
        return found

    def ended(self) -> list[int]:
        """Waits for the ends of all ranks, and ends those that stay like Slurm does. Returns their exit codes."""
        latest = self.started + LONGEST
        while len(self.alive()) == RANKS and time.monotonic() < latest:
            time.sleep(0.05)
        for number in (0, signal.SIGTERM, signal.SIGKILL):
            for process in self.alive():
                os.kill(process.pid, number)
            parted = time.monotonic() + GRACE
            while self.alive() and time.monotonic() < parted:
                time.sleep(0.05)
        return [code_of(process) for process in self.processes]

    def errors(self) -> list[str]:
        """Returns the lines of errors that the ranks have printed, tracebacks included."""
        lines = [
            line for path in sorted(self.printed.iterdir()) for line in path.read_text("utf-8", "replace").splitlines()
        ]
        return [line for line in lines if ": error: " in line or line.startswith("Traceback")]

    def writes(self) -> int:
        """Returns the number of writes to the run's folder, of ranks that have ended by themselves."""
        return max(int(path.read_text()) for path in self.printed.glob("*.writes"))


def code_of(process: BaseProcess) -> int:
    process.join()
    return process.exitcode or 0


def serve(argv: list[str], told: dict[str, str], printed: Path) -> None:
    """Is one rank: does what ``python pipelines/train.py`` does."""
    os.setsid()
    os.chdir(ROOT)
    os.environ.update(told)
    with printed.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    loop.AT_STOP = loop.AT_END = FULL
    persistent.PAUSE = 1.0
    try:
        run_script(TRAIN, argv)
    except SystemExit as end:
        sys.exit(end.code)
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    finally:
        written = ctypes.CDLL(None).fault_writes()
        os.environ.pop("FAULT_FOLDER", None)
        printed.with_suffix(".writes").write_text(str(written))


def log_of(output: Path) -> list[dict]:
    """Returns the log's columns that are equal in equal runs."""
    path = output / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]
