"""What ranks need that are forked from a server which has imported all libraries: such a rank costs no imports."""

import multiprocessing
import runpy
import sys
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
LIBRARIES = "pipelines.vtok_training.run"  # its import imports them all


def environment_of_rank(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Returns what a launcher would tell a rank of one machine."""
    own = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=ranks, LOCAL_SIZE=ranks, MASTER_PORT=port)
    return {name: str(value) for name, value in own.items()} | {"MASTER_ADDR": "127.0.0.1"}


def run_script(script: Path, argv: list[str]) -> None:
    """Does what ``python SCRIPT *argv`` does, in this process."""
    sys.argv = [str(script), *argv]
    runpy.run_path(str(script), run_name="__main__")
