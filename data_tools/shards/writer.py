"""Write a shard with its sidecar, and the manifest from all sidecars.

Headers are USTAR, or GNU's where USTAR cannot hold the name. Their modification time is 0 (an integer), so the same
clips give the same bytes. A float time would add a 1 KB PAX header to every member.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
from zlib_ng.zlib_ng import crc32

from data_tools.shards.layout import (
    LARGEST_SIDE,
    MANIFEST,
    MANIFEST_ROWS,
    ROW,
    SIDECAR,
    VERSION,
    atomic_write,
    read_sidecar,
    shard_name,
    sidecar_path,
    tar_path,
)
from data_tools.shards.samples import RawSample, to_members
from data_tools.shards.tars import BLOCK

END_OF_TAR = bytes(2 * BLOCK)


def write_shard(folder: Path, number: int, samples: Iterable[RawSample]) -> int:
    """Write a shard, then its sidecar. Writes nothing if there are no samples.

    Returns:
        The number of samples.
    """
    samples = iter(samples)
    first = next(samples, None)
    if first is None:
        return 0
    digest, entries = hashlib.sha256(), []
    with atomic_write(tar_path(folder, shard_name(number))) as tar:
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
    write_sidecar(folder, shard_name(number), sidecar_of(size, digest.hexdigest(), entries))
    return len(entries)


def entry(sample: RawSample, offset: int, data: bytes, sizes: dict[str, int]) -> dict:
    """The sidecar's entry of one sample.

    Args:
        sample: the sample.
        offset: of its first header in the tar, bytes.
        data: all its bytes in the tar, with headers and padding.
        sizes: size of each member's body, by ending, bytes.
    """
    several = {"media": 1 + len(sample.others)} if sample.others else {}
    return {
        "key": sample.key,
        "offset": offset,
        "length": len(data),
        "crc32": crc32(data),
        "members": sizes,
        "words": len(sample.meta["caption"].split()),
        "facts": sample.meta["facts"],
        **several,
    }


def sidecar_of(size: int, sha256: str, entries: list[dict], **more) -> dict:
    """The content of a shard's sidecar.

    Args:
        size: of the tar, bytes.
        sha256: of the tar.
        entries: one per sample (see `entry`).
        more: further fields.
    """
    return {"version": VERSION, "bytes": size, "sha256": sha256, "samples": entries, **more}


def write_sidecar(folder: Path, name: str, sidecar: dict) -> None:
    """Write the sidecar of shard `name`, which marks the shard as finished."""
    with atomic_write(sidecar_path(folder, name)) as file:
        file.write(json.dumps(sidecar).encode())


def write_manifest(folder: Path, precomputed: dict | None = None) -> dict:
    """Write the manifest from the sidecars of all finished shards.

    Args:
        folder: of the dataset.
        precomputed: how the views that are stored with the clips were made; None if there are none.

    Returns:
        The content of manifest.json.
    """
    manifest, rows = collect(folder)
    if precomputed:
        manifest["precomputed"] = precomputed
    with atomic_write(folder / MANIFEST_ROWS) as file:
        np.save(file, rows, allow_pickle=False)
    with atomic_write(folder / MANIFEST) as file:
        file.write(json.dumps(manifest, indent=1).encode())
    return manifest


def collect(folder: Path) -> tuple[dict, np.ndarray]:
    """The content of manifest.json and the rows, `ROW` (N,), from all sidecars.

    The manifest's "hash" is the sha256 of the shards' sha256s in order. A run records it as the state of the data.
    """
    shards: list[dict] = []
    rows, digest, most_media = [], hashlib.sha256(), 1
    for name in sorted(path.name.removesuffix(SIDECAR) for path in folder.glob(f"*{SIDECAR}")):
        sidecar = read_sidecar(sidecar_path(folder, name))
        samples = sidecar["samples"]
        rows.append(np.array([_row(len(shards), sample) for sample in samples], dtype=ROW))
        digest.update(sidecar["sha256"].encode())
        most_media = max(most_media, *(sample.get("media", 1) for sample in samples), 1)
        shards.append({"name": name, "samples": len(samples), "bytes": sidecar["bytes"], "sha256": sidecar["sha256"]})
    manifest = {
        "version": VERSION,
        "samples": sum(shard["samples"] for shard in shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "hash": digest.hexdigest(),
        "shards": shards,
    }
    if most_media > 1:
        manifest["most_media"] = most_media
    return manifest, np.concatenate(rows)


def _tar_member(name: str, body: bytes) -> bytes:
    """Header, body and padding of one file. `TarInfo` has 0 for time and owner by default."""
    info = tarfile.TarInfo(name)
    info.size = len(body)
    try:
        header = info.tobuf(tarfile.USTAR_FORMAT)
    except ValueError:  # the name is too long for it
        header = info.tobuf(tarfile.GNU_FORMAT)
    return header + body + bytes(-len(body) % BLOCK)


def _row(shard: int, sample: dict) -> tuple:
    """A sidecar's entry as the values of one `ROW`."""
    facts = sample["facts"]
    place = (shard, sample["offset"], sample["length"], sample["crc32"])
    size = (min(facts.get(side, 0), LARGEST_SIDE) for side in ("width", "height"))
    return (*place, facts["frames"], facts["duration"], sample["words"], *size)
