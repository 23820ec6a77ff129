"""Verify a dataset: read every byte, and compare tars, sidecars and manifest.

the folder   no file is missing, unknown or unfinished
each shard   size and sha256; the tar's samples match the sidecar; each sample's crc32 and texts are right
each clip    with `decode`: every frame decodes, in a child process that may crash or hang, and the facts are right;
             a precomputed sample may have no video
the whole    the manifest matches the sidecars; no key repeats
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.recfunctions import repack_fields
from tqdm import tqdm
from zlib_ng.zlib_ng import crc32

from data_tools.errors import BadVideo, DataError
from data_tools.inspect.measured import REQUIRED, measured
from data_tools.processes.decoder import CLIP_TIMEOUT, Decoder, check_timeout
from data_tools.processes.parallel import in_processes
from data_tools.shards import RawSample, read_sidecar, sidecar_path
from data_tools.shards.layout import EARLIER_ROW, MANIFEST, MANIFEST_ROWS, SIDECAR, VERSION, tar_path
from data_tools.shards.manifest import precomputed_of
from data_tools.shards.samples import bodies_of, from_members
from data_tools.shards.tars import Buffer, Group, groups, mapped, members
from data_tools.shards.writer import collect
from data_tools.video.decode import validate

_Measure = Callable[[RawSample], dict]
NAMED = 3  # number of things that a message lists; the others are counted


@dataclass(frozen=True)
class Verdict:
    """What was checked, and one line for each fault."""

    samples: int
    shards: int
    bytes: int
    faults: list[str]


@dataclass(frozen=True)
class _Shard:
    """The result for one shard.

    Attributes:
        keys: UTF-8 (n,); empty for an indexed tar, whose keys need not be unique in the dataset.
    """

    name: str
    samples: int
    bytes: int
    faults: list[str]
    keys: np.ndarray


def verify_shards(
    folder: str | Path, decode: bool = False, workers: int = 1, clip_timeout: float = CLIP_TIMEOUT
) -> Verdict:
    """Check a dataset.

    Args:
        folder: of the dataset.
        decode: also decode every clip.
        workers: number of processes.
        clip_timeout: seconds for decoding one clip.

    Raises:
        DataError: there is no dataset.
    """
    check_timeout(clip_timeout)
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give the folder of a dataset")
    tars, sidecars = _names(folder, ".tar"), _names(folder, SIDECAR)
    if not tars and not sidecars and not (folder / MANIFEST).exists():
        raise DataError(f"{folder} holds no dataset: there is neither a shard nor a manifest")

    faults = [f"{path.name}: left by a writer that was killed: delete it" for path in sorted(folder.glob("*.part"))]
    faults += [f"{name}.tar: has no sidecar: the shard is unfinished" for name in sorted(tars - sidecars)]
    faults += [f"{name}{SIDECAR}: its tar is missing" for name in sorted(sidecars - tars)]
    checked = []
    both = sorted(tars & sidecars)
    check = partial(_check_shard, folder, decode, clip_timeout, bool(precomputed_of(folder)))
    with tqdm(total=len(both), unit="shard", disable=None) as bar:
        for shard in in_processes(check, both, workers):
            checked.append(shard)
            bar.update()
    faults += [f"{shard.name}.tar: {fault}" for shard in checked for fault in shard.faults]
    faults += _repeated_keys([shard.keys for shard in checked], [shard.name for shard in checked])
    faults += _check_manifest(folder, tars)
    return Verdict(sum(shard.samples for shard in checked), len(checked), sum(shard.bytes for shard in checked), faults)


# ---- one shard ------------------------------------------------------------------------------------------------


def _check_shard(folder: Path, decode: bool, clip_timeout: float, precomputed: bool, name: str) -> _Shard:
    with mapped(tar_path(folder, name)) as data, closing(Decoder(validate, clip_timeout)) as decoder:
        facts_of = partial(measured, decoder=decoder, precomputed=precomputed) if decode else None
        try:
            sidecar = read_sidecar(sidecar_path(folder, name))
            faults = list(_shard_faults(data, sidecar, facts_of))
            samples = sidecar["samples"]
            # Tars of other tools may use the same keys; their sidecars have "rejected".
            keys = [] if "rejected" in sidecar else [sample["key"].encode() for sample in samples]
        except DataError as problem:
            faults, samples, keys = [str(problem)], [], []
        except (KeyError, TypeError, AttributeError) as problem:
            faults, samples, keys = [f"its sidecar lacks a field or has it in another form: {problem!r}"], [], []
        return _Shard(name, len(samples), len(data), faults, np.array(keys, dtype=bytes))


def _shard_faults(data: Buffer, sidecar: dict, facts_of: _Measure | None) -> Iterator[str]:
    size: int = sidecar["bytes"]
    same = _sha256(data, size) == sidecar["sha256"]
    if same and len(data) > size:
        yield f"{len(data) - size} bytes lie behind the end that its sidecar gives: cut the file to {size} bytes"
    elif len(data) != size:
        yield f"{len(data)} bytes, its sidecar says {size}"
    elif not same:
        yield "its sha256 differs from its sidecar's"
    entries = {entry["offset"]: entry for entry in sidecar["samples"]}
    if len(entries) < len(sidecar["samples"]):
        yield "its sidecar lists a sample twice"
    left_out = {line["offset"] for line in sidecar.get("rejected", ())}
    keys: set[str] = set()
    doubled: set[str] = set()
    try:
        for group in groups(members(data, end=size if same else None)):
            if entry := entries.pop(group.offset, None):
                (doubled if group.key in keys else keys).add(group.key)
                yield from (f"sample {group.key}: {fault}" for fault in _sample_faults(data, group, entry, facts_of))
            elif group.offset not in left_out:
                yield f"sample {group.key}: is in the tar but not in its sidecar"
    except DataError as problem:
        yield str(problem)
    if doubled:
        yield f"more than one sample has the key {_some(sorted(doubled))}"
    if entries:
        missing = _some([entry["key"] for entry in entries.values()])
        yield f"its sidecar lists samples that do not start at their offsets in the tar: {missing}"


def _sha256(data: Buffer, size: int) -> str:
    """The sha256 of the first `size` bytes, not copied."""
    with memoryview(data) as whole, whole[:size] as part:
        return hashlib.sha256(part).hexdigest()


def _sample_faults(data: Buffer, group: Group, entry: dict, facts_of: _Measure | None) -> Iterator[str]:
    sizes = {ending: member.size for ending, member in group.members}
    found = {"key": group.key, "length": group.length, "members": sizes}
    if wrong := [name for name, value in found.items() if value != entry[name]]:
        yield f"tar and sidecar differ in {' and '.join(wrong)}"
        return
    if crc32(data[group.offset : group.offset + group.length]) != entry["crc32"]:
        yield "its bytes have changed since they were indexed (crc32)"
        return
    try:
        sample = from_members(group.key, bodies_of(group, data))
        facts = facts_of(sample) if facts_of else entry["facts"]
    except BadVideo as problem:
        yield str(problem)
        return
    words = len(sample.meta["caption"].split())
    if words != entry["words"]:
        yield f"its sidecar says words {entry['words']}, the caption has {words}"
    for name, value in facts.items():
        if name in REQUIRED | entry["facts"].keys() and value != entry["facts"].get(name):
            yield f"its sidecar says {name} {entry['facts'].get(name)!r}, the clip has {value!r}"


# ---- the whole ------------------------------------------------------------------------------------------------


def _repeated_keys(keys: list[np.ndarray], names: list[str]) -> Iterator[str]:
    """Faults for keys that occur in several shards. Repetitions within a shard are that shard's faults."""
    found = np.concatenate([np.unique(shard) for shard in keys] or [np.array([], dtype=bytes)])
    shards = np.repeat(np.arange(len(keys)), [len(np.unique(shard)) for shard in keys])
    values, counts = np.unique(found, return_counts=True)
    for key in values[counts > 1]:
        holders = [f"{names[shard]}.tar" for shard in shards[found == key]]
        yield f"{holders[0]}: its key {key.decode()} is also in {_some(holders[1:])}"


def _check_manifest(folder: Path, tars: set[str]) -> Iterator[str]:
    """Faults of the manifest. Assumes that each sidecar has been compared with its tar."""
    if missing := [name for name in (MANIFEST, MANIFEST_ROWS) if not (folder / name).is_file()]:
        yield f"{' and '.join(missing)}: missing: the dataset is unfinished"
        return
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        listed = {shard["name"] for shard in manifest["shards"]}
        version = manifest["version"]
    except (ValueError, KeyError, TypeError):
        yield "manifest.json: cannot be read"
        return
    if version != VERSION:
        yield f"manifest.json: version {version}, this program reads {VERSION}"
        return
    yield from (f"{name}.tar: is in the manifest but not in the folder" for name in sorted(listed - tars))
    yield from (f"{name}.tar: is in the folder but not in the manifest" for name in sorted(tars - listed))
    if listed != tars or _names(folder, SIDECAR) != tars:
        return
    try:
        expected, rows = collect(folder)
    except (DataError, KeyError, TypeError, ValueError):
        return  # a damaged sidecar is already listed as a fault of its shard
    for name, value in expected.items():
        if manifest.get(name) != value:
            yield f"manifest.json: its field {name} does not match the sidecars"
    try:
        stored = np.load(folder / MANIFEST_ROWS, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as problem:
        yield f"manifest.npy: cannot be read: {problem}"
        return
    if stored.dtype == EARLIER_ROW:
        rows = repack_fields(rows[list(EARLIER_ROW.fields or ())])
    if stored.dtype != rows.dtype or stored.shape != rows.shape:
        yield f"manifest.npy: {len(stored)} rows of {stored.dtype}, the sidecars have {len(rows)} of {rows.dtype}"
    elif wrong := np.flatnonzero(stored != rows).tolist():
        yield f"manifest.npy: differs from the sidecars in row {_some(wrong)}"


def _names(folder: Path, ending: str) -> set[str]:
    """The names of files with an ending, without it."""
    return {path.name.removesuffix(ending) for path in folder.glob(f"*{ending}")}


def _some(things: list) -> str:
    """The first `NAMED` things, and the number of the others."""
    more = f" and {len(things) - NAMED} more" if len(things) > NAMED else ""
    return ", ".join(map(str, things[:NAMED])) + more
