"""What is done of a build, as the files in its folder tell.

build.json                     the plan, written first; also what the locks are held on
shard-000000.tar               )
shard-000000.rejected.jsonl    ) of a finished shard, in the order of their appearance; of one whose
shard-000000.index.json        ) clips were all rejected there is only the middle one
rejected.jsonl                 all rejected clips, in the input's order; then the shards' own lists go
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

from data_tools.build.plan import ShardTask, difference
from data_tools.errors import DataError
from data_tools.shards import sidecar_path
from data_tools.shards.layout import MANIFEST
from data_tools.shards.rejected import REJECTED, read_rejected

PLAN = "build.json"
OURS = ("shard-[0-9]*", "manifest.*", REJECTED, f"{REJECTED}.part", f"{PLAN}*")
DATASETS = (".", "train", "val")
LOCK_PATIENCE = 5.0  # seconds: the processes of a build that was killed just now are about to go


def begin(output: Path, settings: dict, overwrite: bool) -> None:
    """Make `output` the folder of the build that `settings` describe, or check that it is.

    Raises DataError where it holds another one, or anything that is not known to be a build.
    """
    if overwrite and output.is_dir():
        clear(output)
    earlier = read_plan(output)
    if earlier is None:
        _refuse_foreign(output)
        output.mkdir(parents=True, exist_ok=True)
        _write_once(output / PLAN, json.dumps(settings, indent=1).encode())
        earlier = read_plan(output)
    if changes := difference(earlier, settings):
        raise DataError(f"{output} already holds another build: {changes}: choose another folder, or --overwrite")


def read_plan(output: Path) -> dict | None:
    path = output / PLAN
    return json.loads(path.read_text()) if path.is_file() else None


def clear(output: Path) -> None:
    """Delete all that a build has made in `output`, and nothing else."""
    with locked(output, 0, 0) if (output / PLAN).exists() else _nothing():
        for folder in (output / name for name in DATASETS):
            for path in [path for pattern in OURS for path in folder.glob(pattern)]:
                path.unlink(missing_ok=True)


def is_finished(output: Path, task: ShardTask) -> bool:
    packed = sidecar_path(output / task.dataset, task.name).exists()
    return packed or len(read_rejected(rejects_path(output, task))) == len(task.clips)


def rejects_path(output: Path, task: ShardTask) -> Path:
    return output / task.dataset / f"{task.name}.{REJECTED}"


@contextmanager
def locked(output: Path, first: int, count: int, patience: float = LOCK_PATIENCE) -> Iterator[None]:
    """Hold the shards from place `first` of the plan on, `count` of them or, for 0, all that follow.

    Bytes of `build.json` stand for shards, as if it were long enough. The lock belongs to the open file, which
    child processes share: it is free when the last of them has gone. Raises DataError where another process holds it.
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
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return True
    # C's struct flock: type, whence, start, length, pid.
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, first, count, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, request)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # a file system without locks: then it is up to the user not to start two builds in one folder
    return True


def _write_once(path: Path, content: bytes) -> None:
    """Write a file unless another process, of another part, has just done so; it appears whole."""
    own = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.part")
    own.write_bytes(content)
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()


def _refuse_foreign(output: Path) -> None:
    if (output / MANIFEST).exists():
        raise DataError(f"{output} already holds a dataset: choose another folder, or --overwrite")
    if output.is_dir() and any(output.glob("shard-*.tar")):
        raise DataError(f"{output} holds shards without a {PLAN}: choose another folder, or --overwrite")
