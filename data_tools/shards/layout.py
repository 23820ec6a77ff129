"""Names and formats of the files in a dataset folder, and atomic writing."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_tools.errors import DataError

VERSION = 1
SIDECAR = ".index.json"
MANIFEST = "manifest.json"
MANIFEST_ROWS = "manifest.npy"

# A row of an earlier version, which did not know the sizes of frames. `vtok-shards index` writes a manifest anew.
EARLIER_ROW = np.dtype(
    [
        ("shard", "<u4"),  # index of the shard in the manifest's list
        ("offset", "<u8"),  # of the sample's first header in the shard, bytes
        ("length", "<u4"),  # of the whole sample with headers and padding, bytes
        ("crc32", "<u4"),  # of these bytes
        ("frames", "<u4"),
        ("duration", "<f4"),  # seconds
        ("words", "<u4"),  # words of the caption
    ]
)
ROW = np.dtype(
    [
        *EARLIER_ROW.descr,
        ("width", "<u2"),  # pixels as displayed, at most LARGEST_SIDE; 0 of a text, or if it is not known
        ("height", "<u2"),
    ]
)
LARGEST_SIDE = 2**16 - 1


def shard_name(number: int) -> str:
    """The name of a shard's files, without ending."""
    return f"shard-{number:06d}"


def read_sidecar(path: Path) -> dict:
    """The content of a sidecar.

    Raises:
        DataError: the sidecar is damaged or has another version.
    """
    try:
        sidecar = json.loads(path.read_bytes())
        version = sidecar["version"]
        if version == VERSION:
            sidecar["bytes"], sidecar["sha256"], sidecar["samples"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} cannot be read: delete it and run `vtok-shards index {path.parent}`") from None
    if version != VERSION:
        raise DataError(f"{path} has version {version}, this program reads {VERSION}: build the dataset again")
    return sidecar


def tar_path(folder: Path, name: str) -> Path:
    """The path of shard `name`."""
    return folder / f"{name}.tar"


def sidecar_path(folder: Path, name: str) -> Path:
    """The path of the sidecar of shard `name`."""
    return folder / f"{name}{SIDECAR}"


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write a file that takes its name only when it is complete and on disk. After an error nothing is left."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
