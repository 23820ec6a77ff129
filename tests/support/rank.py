"""One of the processes that ``ranks.py`` starts: it runs one command or script after another.

python -m support.rank NUMBER      NUMBER is the descriptor of the pipe on which it is told what to run
"""

import gc
import os
import runpy
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import deepspeed

from support.commands import called, environment_of


def serve(connection: Connection) -> None:
    """One rank: run what comes, until nobody is left who could send more."""
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
