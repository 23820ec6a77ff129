"""Read single samples of a dataset by row, from a folder or from a URL."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from zlib_ng.zlib_ng import crc32

from data_tools.errors import BadVideo, DataError
from data_tools.order import RunOrder
from data_tools.shards.layout import MANIFEST_ROWS, ROW, SIDECAR, read_sidecar, tar_path
from data_tools.shards.manifest import checked_manifest, read_manifest, read_rows
from data_tools.shards.remote import Cache, RemoteFolder, is_remote
from data_tools.shards.samples import MEDIA_ENDINGS, RawSample, from_members, meta_of
from data_tools.shards.tars import BLOCK, key_and_ending, members, plain_file
from data_tools.texts import TEXT_FIELDS, decoded, json_object

# Of all readers of a process, since a mixture has many. An order uses about 40 shards of 1000 at a time; `ulimit -n` is
# often 1024.
MAX_OPEN_SHARDS = 512
_OPEN: dict[tuple[int, int], int] = {}  # (id of the reader, index of the shard) → file descriptor, oldest first


class ShardReader:
    """Random access by row number to a dataset in a folder or at a URL (see `remote`).

    A reader can be forked and pickled: `pread` uses no shared file position, and pickling stores only the folder and
    the cache's settings.

    Args:
        folder: path or URL.
        cache: where fetched files go, for a URL.

    Attributes:
        rows: the memory-mapped manifest, `ROW` (N,); without the sizes of frames if an earlier version wrote it.
        shard_sizes: number of samples of each shard.
        manifest_hash: identifies the state of the data.
        precomputed: how the stored views were made; None if there are none.
        most_media: media of the conversation about the most; 1 if all are about one, or an earlier version wrote this.

    Raises:
        DataError: there is no finished dataset, or its manifest is damaged.
    """

    def __init__(self, folder: str | Path, cache: Cache = Cache()):
        self._entries: dict[int, list[str | None]] = {}  # index of the shard → `_entry` of each of its samples
        self.folder = str(folder) if is_remote(folder) else Path(folder)
        self.cache = cache
        self._remote = RemoteFolder(str(folder), cache) if is_remote(folder) else None
        manifest = checked_manifest(self._remote.manifest, self.folder) if self._remote else read_manifest(Path(folder))
        self.rows = self._load_rows(manifest)
        self.manifest_hash: str = manifest["hash"]
        self.precomputed: dict | None = manifest.get("precomputed")
        self.most_media: int = manifest.get("most_media", 1)
        self.shard_names: list[str] = [shard["name"] for shard in manifest["shards"]]
        self.shard_sizes: list[int] = [shard["samples"] for shard in manifest["shards"]]
        self._shard_hashes: list[str] = [shard["sha256"] for shard in manifest["shards"]]

    def _load_rows(self, manifest: dict) -> np.ndarray:
        path = self._path(MANIFEST_ROWS)
        try:
            return read_rows(path, manifest, self.folder)
        except DataError:
            if self._remote:  # else the damaged copy would stay in the cache after a repair
                path.unlink(missing_ok=True)
            raise

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self):
        return ShardReader, (self.folder, self.cache)

    def __del__(self):
        for key in list(_OPEN):
            if key[0] == id(self):
                os.close(_OPEN.pop(key))

    def order(self, seed: int) -> RunOrder:
        """The order of rows in a run with this seed."""
        return RunOrder(seed, self.shard_sizes)

    def earlier_hashes(self) -> set[str]:
        """The manifest hashes that the dataset had before its last shards were added, for any number of them."""
        digest, hashes = hashlib.sha256(), set()
        for shard in self._shard_hashes[:-1]:
            digest.update(shard.encode())
            hashes.add(digest.hexdigest())
        return hashes

    def source(self, row: int) -> int:
        """0: the number of the dataset that `row` is from (see `streaming.mixture`)."""
        return 0

    def facts(self, rows: np.ndarray) -> np.ndarray:
        """The manifest's entries, `ROW` (n,), for `rows` (n,). An earlier version's manifest knows no sizes."""
        known = self.rows[rows]
        found = np.zeros(len(known), dtype=ROW)
        for name in self.rows.dtype.names or ():
            found[name] = known[name]
        return found

    def read(self, row: int) -> RawSample:
        """The sample at `row`.

        Raises:
            BadVideo: "corrupt_shard" if the bytes differ from those that were written.
            DataError: the shard is missing or cannot be fetched.
        """
        shard, offset, length, expected, frames, duration, *_ = self.rows[row].item()
        with self._shard(shard) as descriptor:
            # The first member's body, the video, has its own read: slicing it from a larger one would copy it.
            head = os.pread(descriptor, BLOCK, offset)
            first = plain_file(head)
            body = os.pread(descriptor, min(first[1], length - BLOCK) if first else 0, offset + BLOCK)
            tail_at = BLOCK + len(body)
            tail = os.pread(descriptor, length - tail_at, offset + tail_at)
        if crc32(tail, crc32(body, crc32(head))) != expected:
            raise BadVideo("corrupt_shard", f"{self.shard_names[shard]}.tar, bytes {offset} to {offset + length}")
        if (sample := _plain_sample(head, body, tail)) is None:
            sample = _unpack([(first[0], body)], tail, -len(body) % BLOCK) if first else _unpack([], head + tail, 0)
        # The json of another tool lacks these facts.
        facts = {"frames": frames, "duration": duration} | sample.meta.get("facts", {})
        if "entry" not in facts and (entry := self._entry(shard, row)):
            facts["entry"] = entry
        sample.meta["facts"] = facts
        return sample

    def key(self, row: int) -> str:
        """The key of the sample at `row`, from the sidecar; available even if the sample cannot be read."""
        shard = int(self.rows["shard"][row])
        return self._listed(shard)[row - sum(self.shard_sizes[:shard])]["key"]

    def shard_facts(self, shard: int) -> list[dict]:
        """The facts of a shard's samples, all that its sidecar has (see `video.VideoFacts`). A json may lack some."""
        return [sample["facts"] for sample in self._listed(shard)]

    def _entry(self, shard: int, row: int) -> str | None:
        """Where reading the clip may begin, as its sidecar says (see `video.VideoFacts`); None if it does not."""
        if shard not in self._entries:
            self._entries[shard] = [facts.get("entry") for facts in self.shard_facts(shard)]
        return self._entries[shard][row - sum(self.shard_sizes[:shard])]

    def _listed(self, shard: int) -> list[dict]:
        """The sidecar's entries of a shard (see `writer.entry`)."""
        return read_sidecar(self._path(f"{self.shard_names[shard]}{SIDECAR}"))["samples"]

    def _path(self, name: str) -> Path:
        """The local path of a file other than a shard; fetches it if remote."""
        return self._remote.fetch(name) if self._remote else Path(self.folder) / name

    @contextmanager
    def _shard(self, shard: int) -> Iterator[int]:
        """A file descriptor of a shard. One in the cache is closed after each read, so that eviction frees space."""
        if self._remote:
            with self._remote.opened(f"{self.shard_names[shard]}.tar") as descriptor:
                yield descriptor
        else:
            yield self._descriptor(shard)

    def _descriptor(self, shard: int) -> int:
        key = id(self), shard
        if key not in _OPEN:
            path = tar_path(Path(self.folder), self.shard_names[shard])
            while len(_OPEN) >= MAX_OPEN_SHARDS:
                os.close(_OPEN.pop(next(iter(_OPEN))))
            try:
                _OPEN[key] = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                raise DataError(f"{path} is in the manifest but not on disk: copy it back or build again") from None
        return _OPEN[key]


def _plain_sample(head: bytes, body: bytes, tail: bytes) -> RawSample | None:
    """Parse a sample with the layout of `write_shard` (KEY.mp4, KEY.txt, KEY.json); None for any other layout.

    The parts are not checked again: they were when the sample was written or indexed, and the crc32 is right. This
    makes reading a third faster.
    """
    key, _, suffix = head[:100].rstrip(b"\0").partition(b".")
    if not key.isalnum() or head[345] or (ending := suffix.decode("ascii", "replace")) not in MEDIA_ENDINGS:
        return None
    texts: list[bytes] = []
    at = -len(body) % BLOCK
    for name in (key + b".txt\0", key + b".json\0"):
        if not tail.startswith(name, at) or tail[at + 156 : at + 157] != b"0":
            return None
        start, size = at + BLOCK, int(tail[at + 124 : at + 135], 8)
        texts.append(tail[start : start + size])
        at = start + size + -size % BLOCK
    if at != len(tail):
        return None
    caption, fields = decoded(texts[0], "the .txt"), json_object(texts[1], "the json")
    if not isinstance(fields.get("path"), str):
        return None
    # Most samples have a caption alone. An indexed tar may have other texts in their raw form.
    simple = caption and TEXT_FIELDS.isdisjoint(fields)
    meta = fields | {"caption": caption} if simple else meta_of(fields, caption, fields["path"])
    return RawSample(key.decode(), body, f".{ending}", meta)


def _unpack(files: list[tuple[str, bytes]], data: bytes, at: int) -> RawSample:
    """The sample made of the given files (name, body) and of those whose headers begin at `at` of `data`."""
    files = files + [(member.name, data[member.start : member.start + member.size]) for member in members(data, at)]
    split = [(*parts, body) for name, body in files if (parts := key_and_ending(name))]
    bodies = {ending: body for _, ending, body in split}
    return from_members(split[0][0], bodies)
