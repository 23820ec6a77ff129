"""Shards: how clips lie on disk, and how one is read.

A dataset folder holds

    shard-000000.tar          plain WebDataset tar: KEY.mp4 (or the clip's own ending), KEY.txt, KEY.json
    shard-000000.index.json   its sidecar, written after it: a shard without one is unfinished
    manifest.npy              one `ROW` per sample, memory-mapped, so that all processes share one copy
    manifest.json             the shards and the dataset's hash, written last: a folder without it is unfinished

KEY is a zero-padded number: WebDataset groups members by what stands before the first dot. Headers are USTAR with
integer times of zero, so that the same clips give the same bytes (a float time adds a 1 KB PAX header to every
member). A file takes its final name only when it is whole and on disk.

Any WebDataset reader can stream the tars; `ShardReader` reads any one sample of them, also from an address.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal.isal_zlib import crc32  # zlib's, but ten times as fast: it is a large part of reading a sample

from .errors import BadVideo, DataError
from .order import RunOrder
from .remote import Cache, RemoteFolder, is_remote

VERSION = 1
BLOCK = tarfile.BLOCKSIZE
END_OF_TAR = bytes(2 * BLOCK)
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


@dataclass(frozen=True)
class RawSample:
    """One clip as it lies in a shard, not yet decoded.

    `extension` is the container's, with its dot. `meta` has "caption", "path" (the clip's name in the build's
    input), "facts" (see `video.VideoFacts`) and whatever else the input said about the clip.
    """

    key: str
    video: bytes
    extension: str
    meta: dict


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
            members = _members(sample)
            data = b"".join(_tar_member(f"{sample.key}.{ending}", body) for ending, body in members.items())
            entries.append(
                {
                    "key": sample.key,
                    "offset": tar.tell(),
                    "length": len(data),
                    "crc32": crc32(data),
                    "members": {ending: len(body) for ending, body in members.items()},
                    "words": len(sample.meta["caption"].split()),
                    "facts": sample.meta["facts"],
                }
            )
            tar.write(data)
            digest.update(data)
        tar.write(END_OF_TAR)
        digest.update(END_OF_TAR)
        size = tar.tell()
    sidecar = {"version": VERSION, "bytes": size, "sha256": digest.hexdigest(), "samples": entries}
    with atomic_write(_sidecar(folder, shard_name(number))) as file:
        file.write(json.dumps(sidecar).encode())
    return len(entries)


def write_manifest(folder: Path) -> dict:
    """Merge the sidecars of all finished shards into the manifest; returns the content of manifest.json.

    Its "hash" is the sha256 over the shards' sha256s in order: the state of the data that a run records.
    """
    shards, rows, digest = [], [], hashlib.sha256()
    for path in sorted(folder.glob("shard-*.index.json")):
        sidecar = json.loads(path.read_text())
        samples = sidecar["samples"]
        rows.append(np.array([_row(len(shards), sample) for sample in samples], dtype=ROW))
        digest.update(sidecar["sha256"].encode())
        shards.append(
            {
                "name": path.name.removesuffix(".index.json"),
                "samples": len(samples),
                "bytes": sidecar["bytes"],
                "sha256": sidecar["sha256"],
            }
        )
    manifest = {
        "version": VERSION,
        "samples": sum(shard["samples"] for shard in shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "hash": digest.hexdigest(),
        "shards": shards,
    }
    with atomic_write(folder / "manifest.npy") as file:
        np.save(file, np.concatenate(rows), allow_pickle=False)
    with atomic_write(folder / "manifest.json") as file:
        file.write(json.dumps(manifest, indent=1).encode())
    return manifest


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


def _members(sample: RawSample) -> dict[str, bytes]:
    """The endings and bodies of a sample's members."""
    meta = {name: value for name, value in sample.meta.items() if name != "caption"}
    return {
        sample.extension.removeprefix("."): sample.video,
        "txt": sample.meta["caption"].encode(),
        "json": json.dumps(meta).encode(),
    }


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


def _sidecar(folder: Path, name: str) -> Path:
    return folder / f"{name}.index.json"


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
        shard, offset, length, expected, *_ = self.rows[row].item()
        with self._shard(shard) as descriptor:
            # The first member's body, the video, is read apart: to cut it out of a larger read would copy it again.
            head = os.pread(descriptor, BLOCK, offset)
            body = os.pread(descriptor, _body_size(head, length - BLOCK), offset + BLOCK)
            tail_at = BLOCK + len(body)
            tail = os.pread(descriptor, length - tail_at, offset + tail_at)
        if crc32(tail, crc32(body, crc32(head))) != expected:
            raise BadVideo("corrupt_shard", f"{self.shard_names[shard]}.tar, bytes {offset} to {offset + length}")
        return _unpack(head, body, tail)

    def key(self, row: int) -> str:
        """The key of the sample at `row`, from the sidecar: known even where the sample itself cannot be read."""
        shard = int(self.rows["shard"][row])
        sidecar = json.loads(self._path(_sidecar(Path(), self.shard_names[shard]).name).read_text())
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


def _body_size(head: bytes, most: int) -> int:
    """The size of the body after a tar header, at most `most`; 0 where the header is damaged."""
    try:
        return min(int(head[124:136].rstrip(b"\0 "), 8), most)
    except ValueError:
        return 0


def _unpack(head: bytes, body: bytes, tail: bytes) -> RawSample:
    """The sample whose first tar member has the header `head` and the given body; `tail` is all that follows."""
    key, ending = _name(head)
    members, at = {ending: body}, -len(body) % BLOCK
    while at < len(tail):
        header, start = tail[at : at + BLOCK], at + BLOCK
        size = _body_size(header, len(tail) - start)
        members[_name(header)[1]] = tail[start : start + size]
        at = start + size + -size % BLOCK
    meta = json.loads(members.pop("json"))
    meta["caption"] = members.pop("txt").decode()
    ((ending, video),) = members.items()
    return RawSample(key, video, f".{ending}", meta)


def _name(header: bytes) -> tuple[str, str]:
    """(key, ending) of a member."""
    key, _, ending = header[:100].rstrip(b"\0").decode().partition(".")
    return key, ending
