"""Datasets at a URL: fetched file by file through fsspec into a cache that all processes of a node share.

    CACHE/<hash of URL and content>/.vtok-cache, manifest.npy, shard-000000.tar, ...
                                    shard-000007.tar.lock       held while the shard is fetched or evicted
                                    shard-000007.tar.SIZE.part  being fetched; counts with its full size
    CACHE/.vtok-cache.lock                                      held while space is reserved

CACHE may hold other data. Only folders with the file .vtok-cache count and are evicted from. A folder of an earlier
version gets that file when its dataset is opened.

A rebuilt dataset at the same URL gets a new folder, so old and new files never mix. A lock is free when its holder
dies (see `locks`). A shard is opened for one read at a time, and Linux keeps an open file readable after it is
deleted. So eviction never breaks a reader, and it frees the disk at once.
"""

import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import fsspec

from data_tools.errors import DataError
from data_tools.locks import locked
from data_tools.shards.layout import MANIFEST

T = TypeVar("T")

ATTEMPTS = 6
FIRST_WAIT = 0.5  # seconds; doubled after each attempt
POLL = 0.2  # seconds between checks for free space
MARKER = ".vtok-cache"  # in each folder that the cache made

# Errors that another attempt cannot fix.
PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError)


@dataclass(frozen=True)
class Cache:
    """The cache for fetched files.

    Attributes:
        folder: shared by the processes of a node; may begin with ~.
        max_bytes: limit for the shards; manifests are not counted.
    """

    folder: Path = Path("~/.cache/vtok/shards")
    max_bytes: int = 64 * 10**9


def is_remote(folder: object) -> bool:
    """Whether `folder` is a URL, such as s3://bucket/shards, and not a path."""
    return re.match(r"[a-z0-9+]+://", str(folder)) is not None


class RemoteFolder:
    """A partial mirror of the dataset folder at `url`.

    Attributes:
        manifest: the content of manifest.json, read on construction.
        local: the folder in the cache.

    Raises:
        DataError: there is no dataset, it cannot be reached after `ATTEMPTS` attempts, a shard exceeds the cache, or
            nobody knows the home folder that the cache is in.
    """

    def __init__(self, url: str, cache: Cache):
        self.url = str(url).rstrip("/")
        self.cache = cache = replace(cache, folder=at_home(cache.folder))
        content = self._retried(MANIFEST, lambda fs, path: fs.cat_file(path))
        try:
            self.manifest: dict = json.loads(content)
            self._bytes = {f"{shard['name']}.tar": shard["bytes"] for shard in self.manifest["shards"]}
            state = f"{self.url} {self.manifest['hash']}"
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.url}/manifest.json is not a dataset's manifest: build the dataset again") from error
        if odd := [name for name in self._bytes if "/" in name or "\0" in name]:
            raise DataError(f"{self.url}: '{odd[0]}' cannot be the name of a shard: build the dataset again")
        if (largest := max(self._bytes.values(), default=0)) > cache.max_bytes:
            raise DataError(
                f"{self.url}: a shard has {largest / 1e9:.2f} GB, the cache holds at most {cache.max_bytes / 1e9:.2f}: "
                "raise data.cache_gb"
            )
        self.local = cache.folder / blake2b(state.encode(), digest_size=12).hexdigest()
        self.local.mkdir(parents=True, exist_ok=True)
        (self.local / MARKER).touch()

    def fetch(self, name: str) -> Path:
        """The local path of a small file, fetched if needed. It is never evicted."""
        with locked(self.local / f"{name}.lock"):
            path = self.local / name
            if not path.exists():
                part = self.local / f"{name}.part"
                self._download(name, part)
                part.rename(path)
        return path

    @contextmanager
    def opened(self, name: str) -> Iterator[int]:
        """A file descriptor of a shard; fetches the whole shard if needed."""
        descriptor = self._open(name)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        """A file descriptor of a shard, which becomes the most recently used one."""
        path = self.local / name
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            with locked(self.local / f"{name}.lock"):
                if not path.exists():  # another process may have fetched it while we waited
                    size = self._bytes[name]
                    part = self.local / f"{name}.{size}.part"
                    reserve(self.cache, part, size)
                    self._download(name, part, size)
                    part.rename(path)
                descriptor = os.open(path, os.O_RDONLY)  # under the lock, so nobody evicts the shard first
        os.utime(descriptor)
        return descriptor

    def _download(self, name: str, part: Path, size: int | None = None) -> None:
        """Fetch a file to `part` and check its size in bytes. After an error `part` is gone."""

        def save(fs: fsspec.AbstractFileSystem, path: str) -> None:
            fs.get_file(path, str(part))
            if size is not None and part.stat().st_size != size:
                raise OSError(f"received {part.stat().st_size} bytes, the manifest says {size}")

        try:
            self._retried(name, save)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _retried(self, name: str, use: Callable[[fsspec.AbstractFileSystem, str], T]) -> T:
        """Call `use(file system, path)`; retry with growing pauses on errors that may pass.

        Raises:
            DataError: the error is permanent, or `ATTEMPTS` attempts failed.
        """
        url = f"{self.url}/{name}"
        for attempt in range(ATTEMPTS):
            try:
                # A new file system per attempt: fsspec's I/O thread does not survive a fork.
                return use(*fsspec.url_to_fs(url))
            except PERMANENT as error:
                raise DataError(f"{url} cannot be fetched: {_said(error)}") from error
            except Exception as error:  # each protocol's library has its own error classes
                if attempt + 1 == ATTEMPTS:
                    raise DataError(f"{url} cannot be fetched, after {ATTEMPTS} attempts: {_said(error)}") from error
                time.sleep(FIRST_WAIT * 2**attempt * random.uniform(0.5, 1))
        raise AssertionError("unreachable")


def at_home(folder: Path) -> Path:
    """The folder with the user's home in place of ~. A container may know no home of its user.

    Raises:
        DataError: it does not.
    """
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise DataError(
            f"the cache for shards is {folder}, but this machine does not know your home folder: set HOME, or "
            "data.cache_dir to a folder without ~"
        ) from error


def reserve(cache: Cache, part: Path, size: int) -> None:
    """Reserve space: create `part`, named NAME.SIZE.part, after evicting the least recently used shards.

    Waits while shards that are being fetched take all the space.
    """
    while True:
        with locked(cache.folder / f"{MARKER}.lock"):
            if _make_room(cache, size):
                part.touch()
                return
        time.sleep(POLL)


def _make_room(cache: Cache, size: int) -> bool:
    """Evict shards until `size` bytes fit. Returns whether they fit."""
    shards, used = [], 0
    for path in _files(cache, ".part"):
        reserved = re.search(r"\.(\d+)\.part$", path.name)
        if reserved and not _abandoned(path, path.with_name(path.name.removesuffix(reserved[0]))):
            used += int(reserved[1])
    for path in _files(cache, ".tar"):
        status = path.stat()
        shards.append((status.st_mtime_ns, status.st_size, path))
        used += status.st_size
    for _, freed, path in sorted(shards):
        if used + size <= cache.max_bytes:
            break
        with locked(_lock_of(path), wait=False) as mine:
            if mine:
                path.unlink(missing_ok=True)
                used -= freed
    return used + size <= cache.max_bytes


def _files(cache: Cache, ending: str) -> list[Path]:
    """The files with an ending in the folders that the cache made."""
    return [path for marker in cache.folder.glob(f"*/{MARKER}") for path in marker.parent.glob(f"*{ending}")]


def _abandoned(part: Path, shard: Path) -> bool:
    """Whether the process that fetched `part` has died. If so, deletes `part`."""
    with locked(_lock_of(shard), wait=False) as mine:
        if mine:
            part.unlink(missing_ok=True)
        return mine


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _said(error: BaseException) -> str:
    """The error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
