"""The state of a build, as the files in its folder, and the locks on its shards.

build.json                     the plan, written first; the locks are held on this file
shard-000000.rejected.jsonl    )
shard-000000.tar               ) a finished shard, in the order of writing;
shard-000000.index.json        ) if all its clips are rejected, only the first file exists
rejected.jsonl                 all rejected clips in input order; replaces the shards' lists
"""

import fcntl
import json
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from data_tools.errors import DataError
from data_tools.packing.plan import ShardTask, tasks_of
from data_tools.shards import read_sidecar, sidecar_path
from data_tools.shards.layout import MANIFEST, MANIFEST_ROWS, tar_path
from data_tools.shards.rejected import REJECTED, read_rejected

PLAN = "build.json"
LOCK_PATIENCE = 5.0  # seconds to wait for the processes of a build that has just been killed


def read_plan(output: Path) -> dict | None:
    """The content of `build.json`; None if there is none. Raises DataError if it is damaged."""
    path = output / PLAN
    if not path.is_file():
        return None
    try:
        plan = json.loads(path.read_bytes())
        tasks_of(plan)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is damaged: build into another folder, or delete this build first") from None
    return plan


def names_of(plan: dict, dataset: str) -> set[str]:
    """The names of all files that a build writes in the folder of a dataset, other than `build.json`."""
    shards = [task.name for task in tasks_of(plan) if task.dataset == dataset]
    made = (path(Path(), name).name for name in shards for path in (tar_path, sidecar_path, _rejects_in))
    return {*made, MANIFEST, MANIFEST_ROWS, REJECTED}


def own_files(output: Path, plan: dict) -> list[Path]:
    """A build's files that are there, other than `build.json`, with those that a killed process left half-written."""
    found = list(output.glob(f"{PLAN}.*.part"))
    for dataset in plan["datasets"]:
        folder, names = output / dataset, names_of(plan, dataset)
        there = folder.iterdir() if folder.is_dir() else ()
        found += [path for path in there if path.name.removesuffix(".part") in names]
    return found


def clear(output: Path, plan: dict) -> None:
    """Delete the files of a build, and nothing else. Raises DataError if a process is writing them."""
    with locked(output, 0, 0):
        for path in own_files(output, plan):
            path.unlink(missing_ok=True)
        (output / PLAN).unlink()  # last, so that a clearing that was killed can be done again


def is_finished(output: Path, task: ShardTask) -> bool:
    """Whether a shard is packed, or all its clips are rejected."""
    packed = is_packed(output / task.dataset, task.name)
    return packed or len(read_rejected(rejects_path(output, task))) == len(task.clips)


def is_packed(folder: Path, name: str) -> bool:
    """Whether shard `name` has a sidecar that can be read, and a tar of the size that it says."""
    path, tar = sidecar_path(folder, name), tar_path(folder, name)
    try:
        return path.is_file() and tar.is_file() and tar.stat().st_size == read_sidecar(path)["bytes"]
    except DataError:
        return False


def rejects_path(output: Path, task: ShardTask) -> Path:
    """The path of a shard's own list of rejected clips."""
    return _rejects_in(output / task.dataset, task.name)


def _rejects_in(folder: Path, name: str) -> Path:
    return folder / f"{name}.{REJECTED}"


@contextmanager
def locked(output: Path, first: int, count: int, patience: float = LOCK_PATIENCE) -> Iterator[None]:
    """Lock shards of a build.

    A shard is locked by locking one byte of `build.json`, also past its end. The lock belongs to the open file, which
    child processes inherit. So it is released when the last of them has ended.

    Args:
        output: folder of the build.
        first: index of the first shard in the plan.
        count: number of shards; 0 for all from `first` on.
        patience: seconds to wait for another holder.

    Raises:
        DataError: another process still holds a shard.
    """
    with (output / PLAN).open("r+b") as file:
        deadline = time.monotonic() + patience
        while not _try_lock(file, first, count):
            if time.monotonic() > deadline:
                raise DataError(f"{output} is being written by another process: wait for it, or stop it first")
            time.sleep(0.05)
        yield


def _try_lock(file: BinaryIO, first: int, count: int) -> bool:
    """Lock bytes of an open file. Returns False if another process holds one of them."""
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return True
    # C's struct flock: type, whence, start, length, pid.
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, first, count, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, request)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # a file system without locks: the user must not start two builds in one folder
    return True
