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
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from data_tools.errors import DataError
from data_tools.packing.plan import ShardTask, difference, tasks_of
from data_tools.shards import read_sidecar, sidecar_path
from data_tools.shards.layout import MANIFEST, tar_path
from data_tools.shards.rejected import REJECTED, read_rejected

PLAN = "build.json"
OURS = ("shard-[0-9]*", "manifest.*", REJECTED, f"{REJECTED}.part", f"{PLAN}*")
DATASETS = (".", "train", "val")
LOCK_PATIENCE = 5.0  # seconds to wait for the processes of a build that has just been killed


def begin(output: Path, settings: dict, overwrite: bool) -> None:
    """Start the build that `settings` describe in `output`, or check that `output` holds this build.

    Args:
        output: folder of the build.
        settings: the content of `build.json` (see `plan.describe_build`).
        overwrite: delete an existing build first.

    Raises:
        DataError: `output` holds another build, or shards without a plan.
    """
    if overwrite and output.is_dir():
        clear(output)
    earlier = read_plan(output)
    if earlier is None:
        _refuse_foreign(output)
        output.mkdir(parents=True, exist_ok=True)
        _write_once(output / PLAN, json.dumps(settings, indent=1).encode())
        earlier = read_plan(output) or {}
    if changes := difference(earlier, settings):
        raise DataError(f"{output} already holds another build: {changes}: choose another folder, or --overwrite")


def read_plan(output: Path) -> dict | None:
    """The content of `build.json`; None if there is none. Raises DataError if it is damaged."""
    path = output / PLAN
    if not path.is_file():
        return None
    try:
        plan = json.loads(path.read_bytes())
        tasks_of(plan)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is damaged: build into another folder, or build again with --overwrite") from None
    return plan


def clear(output: Path) -> None:
    """Delete the files of a build in `output`, and nothing else. Raises DataError if a process is writing them."""
    with locked(output, 0, 0) if (output / PLAN).exists() else _nothing():
        for folder in (output / name for name in DATASETS):
            for path in [path for pattern in OURS for path in folder.glob(pattern)]:
                path.unlink(missing_ok=True)


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
    return output / task.dataset / f"{task.name}.{REJECTED}"


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


@contextmanager
def _nothing() -> Iterator[None]:
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


def _write_once(path: Path, content: bytes) -> None:
    """Write a file atomically, unless a process of another part has written it first."""
    own = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.part")
    own.write_bytes(content)
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()


def _refuse_foreign(output: Path) -> None:
    """Raise DataError if a folder without a plan holds a dataset or shards."""
    if (output / MANIFEST).exists():
        raise DataError(f"{output} already holds a dataset: choose another folder, or --overwrite")
    if output.is_dir() and any(output.glob("shard-*.tar")):
        raise DataError(f"{output} holds shards without a {PLAN}: choose another folder, or --overwrite")
