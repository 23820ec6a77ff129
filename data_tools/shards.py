"""Shards: how clips lie on disk, and how one is read.

A dataset folder holds

    shard-000000.tar          plain WebDataset tar: KEY.mp4 (or the clip's own ending), KEY.txt, KEY.json
    shard-000000.index.json   its sidecar, written after it: a shard without one is unfinished
    manifest.npy              one `ROW` per sample, memory-mapped, so that all processes share one copy
    manifest.json             the shards and the dataset's hash, written last: a folder without it is unfinished

KEY is a zero-padded number: WebDataset groups members by what stands before the first dot. Headers are USTAR with
integer times of zero, so that the same clips give the same bytes (a float time adds a 1 KB PAX header to every
member). A file takes its final name only when it is whole and on disk. Tars that others built have other names and
headers; `index` writes the sidecars and the manifest for them.

Any WebDataset reader can stream the tars; `ShardReader` reads any one sample of them, also from an address.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal.isal_zlib import crc32  # zlib's, but ten times as fast: it is a large part of reading a sample

from .errors import BadVideo, DataError
from .order import RunOrder
from .remote import Cache, RemoteFolder, is_remote
from .samples import RawSample, from_members, to_members
from .tars import BLOCK, key_and_ending, members, plain_file

VERSION = 1
END_OF_TAR = bytes(2 * BLOCK)
SIDECAR = ".index.json"
MAX_OPEN_SHARDS = 128  # an epoch's order keeps about 40 shards of 1000 in use; `ulimit -n` is often 1024

ROW = np.dtype(
    [
        ("shard", "<u4"),  # place of the shard in the manifest's list
        ("offset", "<u8"),  # of the sample's first header in the shard, bytes
        ("length", "<u4"),  # of the whole sample, headers and padding included, bytes
        ("crc32", "<u4"),  # of those bytes
        ("frames", "<u4"),
        ("duration", "<f4"),  # seconds
        ("words", "<u4"),  # of the caption
    ]
)


# ---- writing --------------------------------------------------------------------------------------------------


def shard_name(number: int) -> str:
    return f"shard-{number:06d}"


def write_shard(folder: Path, number: int, samples: Iterable[RawSample]) -> int:
    """Write a shard, then its sidecar; returns the number of samples. Without samples nothing is written."""
    samples = iter(samples)
    first = next(samples, None)
    if first is None:
        return 0
    digest, entries = hashlib.sha256(), []
    with atomic_write(folder / f"{shard_name(number)}.tar") as tar:
        for sample in chain([first], samples):
            bodies = to_members(sample)
            data = b"".join(_tar_member(f"{sample.key}.{ending}", body) for ending, body in bodies.items())
            sizes = {ending: len(body) for ending, body in bodies.items()}
            entries.append(entry(sample, tar.tell(), data, sizes))
            tar.write(data)
            digest.update(data)
        tar.write(END_OF_TAR)
        digest.update(END_OF_TAR)
        size = tar.tell()
    write_sidecar(folder, shard_name(number), size, digest.hexdigest(), entries)
    return len(entries)


def entry(sample: RawSample, offset: int, data: bytes, sizes: dict[str, int]) -> dict:
    """What a sidecar says of one sample, whose members with the given sizes lie as `data` at `offset` of the tar."""
    return {
        "key": sample.key,
        "offset": offset,
        "length": len(data),
        "crc32": crc32(data),
        "members": sizes,
        "words": len(sample.meta["caption"].split()),
        "facts": sample.meta["facts"],
    }


def write_sidecar(folder: Path, name: str, size: int, sha256: str, entries: list[dict], **more) -> None:
    """Finish the shard `name`: a tar of `size` bytes that holds the samples of `entries` (see `entry`)."""
    sidecar = {"version": VERSION, "bytes": size, "sha256": sha256, "samples": entries, **more}
    with atomic_write(sidecar_path(folder, name)) as file:
        file.write(json.dumps(sidecar).encode())


def read_sidecar(path: Path) -> dict:
    """The content of a sidecar. Raises DataError where it is damaged or of another version."""
    try:
        sidecar = json.loads(path.read_bytes())
        version = sidecar["version"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} cannot be read: delete it and run `vtok-shards index {path.parent}`") from None
    if version != VERSION:
        raise DataError(f"{path} is of version {version}, this program reads {VERSION}: build the dataset again")
    return sidecar


def sidecar_path(folder: Path, name: str) -> Path:
    return folder / f"{name}{SIDECAR}"


def write_manifest(folder: Path, precomputed: dict | None = None) -> dict:
    """Merge the sidecars of all finished shards into the manifest; returns the content of manifest.json.

    `precomputed` says how what is stored with the clips was made, where something is.
    """
    manifest, rows = collect(folder)
    if precomputed:
        manifest["precomputed"] = precomputed
    with atomic_write(folder / "manifest.npy") as file:
        np.save(file, rows, allow_pickle=False)
    with atomic_write(folder / "manifest.json") as file:
        file.write(json.dumps(manifest, indent=1).encode())
    return manifest


def collect(folder: Path) -> tuple[dict, np.ndarray]:
    """What the sidecars say together: the content of manifest.json, and the rows, `ROW` (N,).

    The manifest's "hash" is the sha256 over the shards' sha256s in order: the state of the data that a run records.
    """
    shards, rows, digest = [], [], hashlib.sha256()
    for name in sorted(path.name.removesuffix(SIDECAR) for path in folder.glob(f"*{SIDECAR}")):
        sidecar = read_sidecar(sidecar_path(folder, name))
        samples = sidecar["samples"]
        rows.append(np.array([_row(len(shards), sample) for sample in samples], dtype=ROW))
        digest.update(sidecar["sha256"].encode())
        shards.append({"name": name, "samples": len(samples), "bytes": sidecar["bytes"], "sha256": sidecar["sha256"]})
    manifest = {
        "version": VERSION,
        "samples": sum(shard["samples"] for shard in shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "hash": digest.hexdigest(),
        "shards": shards,
    }
    return manifest, np.concatenate(rows)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is whole and on disk; on an error nothing is left."""
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


def _tar_member(name: str, body: bytes) -> bytes:
    """Header, body and padding of one file; `TarInfo` starts with times and owners of zero."""
    info = tarfile.TarInfo(name)
    info.size = len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % BLOCK)


def _row(shard: int, sample: dict) -> tuple:
    """A sidecar's entry as one `ROW`."""
    facts = sample["facts"]
    place = (shard, sample["offset"], sample["length"], sample["crc32"])
    return (*place, facts["frames"], facts["duration"], sample["words"])


# ---- reading --------------------------------------------------------------------------------------------------


class ShardReader:
    """Random access by row number to a dataset at a folder or at an address (see `remote`).

    `rows` is the memory-mapped manifest, `ROW` (N,); `shard_sizes` the number of samples of each shard;
    `manifest_hash` names the state of the data. Goes to worker processes by fork or by pickle: `pread` has no file
    position to share, and a pickled reader is only its folder's name.

    Raises DataError where there is no finished dataset.
    """

    def __init__(self, folder: str | Path, cache: Cache = Cache()):
        self._open: dict[int, int] = {}  # place of the shard → file descriptor, oldest first
        self.folder = str(folder) if is_remote(folder) else Path(folder)
        self.cache = cache
        self._remote = RemoteFolder(self.folder, cache) if is_remote(folder) else None
        manifest = self._load_manifest()
        self.rows = np.load(self._path("manifest.npy"), mmap_mode="r", allow_pickle=False)
        self.manifest_hash: str = manifest["hash"]
        self.precomputed: dict | None = manifest.get("precomputed")
        self.shard_names: list[str] = [shard["name"] for shard in manifest["shards"]]
        self.shard_sizes: list[int] = [shard["samples"] for shard in manifest["shards"]]
        if self.rows.dtype != ROW or len(self.rows) != manifest["samples"]:
            raise DataError(f"{self.folder}: manifest.npy does not fit manifest.json: build the dataset again")

    def _load_manifest(self) -> dict:
        manifest = self._remote.manifest if self._remote else self._local_manifest()
        if manifest["version"] != VERSION:
            raise DataError(
                f"{self.folder}: manifest version {manifest['version']}, this program reads {VERSION}: "
                "build the dataset again"
            )
        return manifest

    def _local_manifest(self) -> dict:
        path = self.folder / "manifest.json"
        if not path.is_file() or not path.with_suffix(".npy").is_file():
            state = "holds no finished dataset (no manifest)" if self.folder.is_dir() else "does not exist"
            raise DataError(f"{self.folder} {state}: run `vtok-shards build INPUT --output {self.folder}`")
        return json.loads(path.read_text())

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self):
        return ShardReader, (self.folder, self.cache)

    def __del__(self):
        for descriptor in self._open.values():
            os.close(descriptor)

    def order(self, seed: int) -> RunOrder:
        """The sequence in which a run of this seed goes through the dataset."""
        return RunOrder(seed, self.shard_sizes)

    def facts(self, rows: np.ndarray) -> np.ndarray:
        """The manifest's entries, `ROW` (n,), of `rows` (n,)."""
        return self.rows[rows]

    def read(self, row: int) -> RawSample:
        """The sample at `row`. Raises BadVideo("corrupt_shard") where its bytes are not those that were written."""
        shard, offset, length, expected, frames, duration, *_ = self.rows[row].item()
        with self._shard(shard) as descriptor:
            # The first member's body, the video, is read apart: to cut it out of a larger read would copy it again.
            head = os.pread(descriptor, BLOCK, offset)
            first = plain_file(head)
            body = os.pread(descriptor, min(first[1], length - BLOCK) if first else 0, offset + BLOCK)
            tail_at = BLOCK + len(body)
            tail = os.pread(descriptor, length - tail_at, offset + tail_at)
        if crc32(tail, crc32(body, crc32(head))) != expected:
            raise BadVideo("corrupt_shard", f"{self.shard_names[shard]}.tar, bytes {offset} to {offset + length}")
        sample = _unpack([(first[0], body)], tail, -len(body) % BLOCK) if first else _unpack([], head + tail, 0)
        # A json of another tool's says nothing of them; ours has them in full.
        sample.meta["facts"] = {"frames": frames, "duration": duration} | sample.meta.get("facts", {})
        return sample

    def key(self, row: int) -> str:
        """The key of the sample at `row`, from the sidecar: known even where the sample itself cannot be read."""
        shard = int(self.rows["shard"][row])
        sidecar = read_sidecar(self._path(f"{self.shard_names[shard]}{SIDECAR}"))
        return sidecar["samples"][row - sum(self.shard_sizes[:shard])]["key"]

    def _path(self, name: str) -> Path:
        """A file other than a shard, on this machine."""
        return self._remote.fetch(name) if self._remote else self.folder / name

    @contextmanager
    def _shard(self, shard: int) -> Iterator[int]:
        """A descriptor of a shard. A cached one is closed after each read, so that eviction frees its space."""
        if self._remote:
            with self._remote.opened(f"{self.shard_names[shard]}.tar") as descriptor:
                yield descriptor
        else:
            yield self._descriptor(shard)

    def _descriptor(self, shard: int) -> int:
        if shard not in self._open:
            path = self.folder / f"{self.shard_names[shard]}.tar"
            if len(self._open) == MAX_OPEN_SHARDS:
                os.close(self._open.pop(next(iter(self._open))))
            try:
                self._open[shard] = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                raise DataError(f"{path} is in the manifest but not on disk: copy it back or build again") from None
        return self._open[shard]


def _unpack(files: list[tuple[str, bytes]], data: bytes, at: int) -> RawSample:
    """The sample of the given files (name, body) and of those whose headers begin at `at` of `data`."""
    files = files + [(member.name, data[member.start : member.start + member.size]) for member in members(data, at)]
    split = [(key_and_ending(name), body) for name, body in files]
    bodies = {place[1]: body for place, body in split if place}
    return from_members(split[0][0][0], bodies)
