"""Datasets at an address: fetched file by file, through fsspec, into a cache that all processes of a node share.

    CACHE/<address and content, hashed>/manifest.json, manifest.npy, shard-000000.tar, ...
                                        shard-000007.tar.lock           held by who fetches or evicts it
                                        shard-000007.tar.SIZE.part      being fetched, counted with its full size
    CACHE/lock                                                          held while room is made

A dataset that is built anew at its old address has another folder, so old and new never mix. Locks are `flock`s: the
system frees those of a process that dies. A shard is opened for one read at a time, and Linux keeps an open file
readable after its name is gone: eviction never breaks a reader, and frees the disk at once.
"""

import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
POLL = 0.2  # seconds between looks for room that others will free

# What another attempt will not mend.
PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError)


@dataclass(frozen=True)
class Cache:
    """Where fetched files go, and the most bytes that shards may take there (manifests come on top)."""

    folder: Path = Path("~/.cache/vtok/shards").expanduser()
    max_bytes: int = 64 * 10**9


def is_remote(folder: object) -> bool:
    """Whether `folder` is an address, such as s3://bucket/shards, rather than a path."""
    return re.match(r"[a-z0-9+]+://", str(folder)) is not None


class RemoteFolder:
    """A dataset folder at `url`, mirrored in part.

    manifest: the content of its manifest.json, read anew. local: its folder in the cache.
    Raises DataError where there is none, and where it cannot be reached after several attempts.
    """

    def __init__(self, url: str, cache: Cache):
        self.url = str(url).rstrip("/")
        self.cache = cache
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
                f"{self.url}: a shard has {largest / 1e9:.2f} GB, the cache may hold {cache.max_bytes / 1e9:.2f}: "
                "raise data.cache_gb"
            )
        self.local = cache.folder / blake2b(state.encode(), digest_size=12).hexdigest()
        self.local.mkdir(parents=True, exist_ok=True)

    def fetch(self, name: str) -> Path:
        """A small file of the folder, in the cache; it stays there."""
        with locked(self.local / f"{name}.lock"):
            path = self.local / name
            if not path.exists():
                part = self.local / f"{name}.part"
                self._download(name, part)
                part.rename(path)
        return path

    @contextmanager
    def opened(self, name: str) -> Iterator[int]:
        """A file descriptor of a shard, fetched whole if it is not there."""
        descriptor = self._open(name)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        """A file descriptor of a shard, now the one used last."""
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
                descriptor = os.open(path, os.O_RDONLY)  # under the lock: nobody evicts it before it is open
        os.utime(descriptor)
        return descriptor

    def _download(self, name: str, part: Path, size: int | None = None) -> None:
        def save(fs: fsspec.AbstractFileSystem, path: str) -> None:
            fs.get_file(path, str(part))
            if size is not None and part.stat().st_size != size:
                raise OSError(f"{part.stat().st_size} bytes came, the manifest says {size}")

        try:
            self._retried(name, save)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _retried(self, name: str, use: Callable[[fsspec.AbstractFileSystem, str], T]) -> T:
        """What `use` makes of (file system, path in it), tried again, with growing pauses, while that may help."""
        url = f"{self.url}/{name}"
        for attempt in range(ATTEMPTS):
            try:
                # Asked for anew each time: fsspec's own thread does not live on through a fork.
                return use(*fsspec.url_to_fs(url))
            except PERMANENT as error:
                raise DataError(f"{url} cannot be fetched: {_said(error)}") from error
            except Exception as error:  # every protocol's library has errors of its own
                if attempt + 1 == ATTEMPTS:
                    raise DataError(f"{url} cannot be fetched, after {ATTEMPTS} attempts: {_said(error)}") from error
                time.sleep(FIRST_WAIT * 2**attempt * random.uniform(0.5, 1))
        raise AssertionError("unreachable")


def reserve(cache: Cache, part: Path, size: int) -> None:
    """Create `part`, named NAME.SIZE.part, once its `size` bytes fit; shards unused for longest make way.

    Waits where all the room is taken by shards that are being fetched.
    """
    while True:
        with locked(cache.folder / "lock"):
            if _make_room(cache, size):
                part.touch()
                return
        time.sleep(POLL)


def _make_room(cache: Cache, size: int) -> bool:
    """Evict until `size` bytes fit; False if they do not even then."""
    shards, used = [], 0
    for path in cache.folder.glob("*/*.part"):
        reserved = re.search(r"\.(\d+)\.part$", path.name)
        if reserved and not _abandoned(path, path.with_name(path.name.removesuffix(reserved[0]))):
            used += int(reserved[1])
    for path in cache.folder.glob("*/*.tar"):
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


def _abandoned(part: Path, shard: Path) -> bool:
    """Whether who was fetching `part` is gone; then so is the part."""
    with locked(_lock_of(shard), wait=False) as mine:
        if mine:
            part.unlink(missing_ok=True)
        return mine


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
