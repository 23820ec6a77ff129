"""One of the processes that ``ranks.py`` starts: it runs one command or script after another."""

import faulthandler
import gc
import os
import signal
import sys
import tempfile
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic, sleep

import deepspeed
from torch.distributed import DistError, distributed_c10d

from pipelines.benchmarks.forked import run_script
from support.commands import called, environment_of
from support.launch import REPO

STACK_SIGNAL = signal.SIGUSR2  # a rank that gets it writes what its threads are doing


def stack_file(pid: int) -> Path:
    """Where a rank writes that."""
    return Path(tempfile.gettempdir()) / f"vtok_test_rank_{pid}.txt"


def serve(connection: Connection) -> None:
    """One rank: run what comes, until nobody is left who could send more."""
    os.chdir(REPO)
    stacks = stack_file(os.getpid()).open("w")
    faulthandler.register(STACK_SIGNAL, stacks)
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
                    with suppress(DistError):  # the rank that keeps the store has ended
                        await_others()
                    deepspeed.comm.destroy_process_group()

        with environment_of(os.environ | told):
            connection.send(called(main, *arguments))
        gc.collect()


def await_others() -> None:
    """Rank 0 keeps the store for the others' last questions, as a process does that takes a while to end."""
    store, latest = distributed_c10d._get_default_store(), monotonic() + 2
    store.add("ended", 1)
    while os.environ["RANK"] == "0" and store.add("ended", 0) < int(os.environ["WORLD_SIZE"]) and monotonic() < latest:
        sleep(0.01)
