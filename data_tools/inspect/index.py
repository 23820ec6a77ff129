"""Index the tars of other tools: write a sidecar for each, then the manifest. The tars are not changed.

Any WebDataset tar can be read (see `shards.samples`). Each clip is decoded in full for its facts, in a child process
that may crash or hang. A sample that is not a sound captioned clip is left out. The sidecar and `rejected.jsonl` list
it with the reason. A sample of a precomputed dataset may have no video: the facts of its json hold.

A sidecar is written when its tar is done. That of a tar without any sound sample is written at the end, and only if
another tar has one. A later run keeps a sidecar while the tar is the same, so a killed run resumes where it stopped. A
tar that was written or moved after its sidecar is hashed to find out.
"""

import hashlib
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from data_tools.errors import BadVideo, DataError
from data_tools.inspect.beside import beside
from data_tools.inspect.measured import measured
from data_tools.packing.sources.files import walk
from data_tools.processes.decoder import CLIP_TIMEOUT, Decoder, check_timeout
from data_tools.processes.parallel import in_processes
from data_tools.shards import read_sidecar, sidecar_path, write_manifest
from data_tools.shards.layout import SIDECAR, tar_path
from data_tools.shards.manifest import precomputed_of
from data_tools.shards.rejected import REJECTED, read_rejected, write_rejected
from data_tools.shards.samples import bodies_of, from_members, videos_of_dotted_keys
from data_tools.shards.tars import Buffer, Group, groups, mapped, members
from data_tools.shards.writer import entry, sidecar_of, write_sidecar
from data_tools.video.decode import validate
from data_tools.video.facts import VideoFacts

DURATION_SLACK = 0.05  # tolerance for the duration in a sample's json, seconds


@dataclass(frozen=True)
class IndexSummary:
    """Totals of an indexed folder.

    Attributes:
        samples: usable samples.
        shards: tars.
        bytes: of all tars.
        merged: samples that hold several videos, because of dots in their names.
        reasons: number of samples left out, by reason.
        beside: what the folder holds beside its tars, a sentence for each kind.
    """

    samples: int
    shards: int
    bytes: int
    merged: int
    reasons: dict[str, int]
    beside: list[str]


def index_shards(
    folder: str | Path, workers: int = 1, overwrite: bool = False, clip_timeout: float = CLIP_TIMEOUT
) -> IndexSummary:
    """Write the missing sidecars of the tars in a folder, and the manifest.

    Args:
        folder: holds the tars.
        workers: number of processes.
        overwrite: write all sidecars again.
        clip_timeout: seconds for decoding one clip.

    Raises:
        DataError: there are no tars, a tar cannot be read (the others are indexed first), or no sample is usable.
    """
    check_timeout(clip_timeout)
    folder = Path(folder)
    names, precomputed = _tar_names(folder), precomputed_of(folder)
    index = partial(_try_index, folder, clip_timeout, overwrite, bool(precomputed))
    with tqdm(total=len(names), unit="tar", disable=None) as bar:
        damaged: list[str] = []
        unusable: dict[str, dict] = {}
        for name, done in zip(names, in_processes(index, names, workers)):
            if isinstance(done, str):
                damaged.append(done)
            elif done:
                unusable[name] = done
            bar.update()
    if damaged:
        more = f" (and {len(damaged) - 1} more tars)" if len(damaged) > 1 else ""
        raise DataError(f"{damaged[0]}{more}: repair or remove it, the others are indexed")
    samples, merged = 0, 0
    rejected: list[dict] = []
    for name in names:
        sidecar = unusable.get(name) or read_sidecar(sidecar_path(folder, name))
        samples += len(sidecar["samples"])
        merged += sidecar.get("merged", 0)
        rejected += [
            {"path": f"{name}.tar/{line['key']}", "shard": name} | line for line in sidecar.get("rejected", ())
        ]
    # Keep the lines of a build, which have no field "shard".
    write_rejected(
        folder / REJECTED, [line for line in read_rejected(folder / REJECTED) if "shard" not in line] + rejected
    )
    if not samples:
        raise DataError(f"{folder}: none of the samples is a captioned clip; {REJECTED} there says why for each")
    for name, sidecar in unusable.items():
        write_sidecar(folder, name, sidecar)
    manifest = write_manifest(folder, precomputed)
    reasons = dict(Counter(line["reason"] for line in rejected))
    indexed = {tar_path(folder, name) for name in names}
    others = [path for path in walk(folder) if path not in indexed and path.name != REJECTED]
    return IndexSummary(samples, len(names), manifest["bytes"], merged, reasons, beside(folder, others))


def index_tar(folder: Path, name: str, clip_timeout: float, precomputed: bool) -> dict:
    """The sidecar of one tar.

    Args:
        folder: of the tar.
        name: of the tar, without ending.
        clip_timeout: seconds for decoding one clip.
        precomputed: whether its samples may have no video.

    Raises:
        DataError: the tar cannot be read to its end.
    """
    entries: dict[str, dict] = {}  # by key
    rejected, merged = [], 0
    with mapped(tar_path(folder, name)) as data, closing(Decoder(validate, clip_timeout)) as decoder:
        # Read all headers before decoding, which takes long: a damaged tar then fails at once.
        for group in list(groups(members(data))):
            try:
                if group.key in entries:
                    raise BadVideo(
                        "duplicate_key", "an earlier sample of this tar has the same key: rename one of them"
                    )
                entries[group.key] = _entry(data, group, decoder, precomputed)
            except BadVideo as problem:
                merged += is_merged(group)
                why = {"reason": problem.reason, "detail": problem.detail}
                rejected.append({"key": group.key, "offset": group.offset} | why)
        sha256 = hashlib.sha256(data).hexdigest()
        return sidecar_of(len(data), sha256, list(entries.values()), rejected=rejected, merged=merged)


def is_merged(group: Group) -> bool:
    """Whether WebDataset's rule merged several clips into this sample, because their keys differ after a dot only."""
    return len(videos_of_dotted_keys(ending for ending, _ in group.members)) > 1


def _entry(data: Buffer, group: Group, decoder: Decoder[bytes, VideoFacts], precomputed: bool) -> dict:
    """Decode a sample in full and make its sidecar entry. Raises BadVideo if it is not a sound captioned clip."""
    bodies = bodies_of(group, data)
    sample = from_members(group.key, bodies)
    facts = measured(sample, decoder, precomputed)
    _check_told(sample.meta.get("facts", {}), facts)
    sample.meta["facts"] = facts
    whole = data[group.offset : group.offset + group.length]
    return entry(sample, group.offset, whole, {ending: len(body) for ending, body in bodies.items()})


def _check_told(told: dict, facts: dict) -> None:
    """Raise BadVideo if the facts in a sample's json, which readers use, differ from those of the clip."""
    for name, slack in (("frames", 0), ("duration", DURATION_SLACK)):
        value = told.get(name, facts[name])
        if not isinstance(value, int | float) or abs(value - facts[name]) > slack:
            raise BadVideo("wrong_facts", f"the json says {name} {value!r}, the clip has {facts[name]!r}")
    if told.get("entry", facts.get("entry")) != facts.get("entry"):
        raise BadVideo("wrong_facts", f"the json says entry {told['entry']!r}, the clip has {facts['entry']!r}")


def _try_index(folder: Path, clip_timeout: float, overwrite: bool, precomputed: bool, name: str) -> str | dict | None:
    """Write a tar's sidecar if it is missing or of another tar.

    Returns:
        The error message of an unreadable tar; the sidecar, not written, of a tar without any sound sample; else None.
    """
    try:
        if not overwrite and _is_indexed(folder, name):
            return None
        sidecar = index_tar(folder, name, clip_timeout, precomputed)
    except DataError as problem:
        return f"{folder / name}.tar: {problem}"
    if not sidecar["samples"]:
        return sidecar
    write_sidecar(folder, name, sidecar)
    return None


def _tar_names(folder: Path) -> list[str]:
    """The names of a folder's tars without ending, sorted. Raises DataError if a tar is missing or there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give the folder that holds the tars")
    names = sorted(path.stem for path in folder.glob("*.tar"))
    if not names:
        packed = any(path.name.endswith((".tar.gz", ".tgz", ".tar.zst")) for path in folder.iterdir())
        hint = "compressed tars have no random access: unpack them first" if packed else "put them there"
        if below := min((path for path in walk(folder) if path.suffix == ".tar"), default=None):
            hint = f"the first one below it is {below}: give its folder, or pack all tars anew with build"
        raise DataError(f"{folder} holds no .tar files: {hint}")
    for path in sorted(folder.glob(f"*{SIDECAR}")):
        if path.name.removesuffix(SIDECAR) not in names:
            raise DataError(f"{path} belongs to a tar that is not there: copy the tar back or delete the sidecar")
    return names


def _is_indexed(folder: Path, name: str) -> bool:
    """Whether a tar has a readable sidecar of its size and, if it is newer than the sidecar, of its sha256."""
    tar, path = tar_path(folder, name), sidecar_path(folder, name)
    if not path.exists():
        return False
    try:
        sidecar = read_sidecar(path)
    except DataError:
        return False
    if sidecar["bytes"] != tar.stat().st_size:
        return False
    # Not the modification time, which a copy may keep.
    if tar.stat().st_ctime_ns > path.stat().st_ctime_ns:
        with mapped(tar) as data:
            if sidecar["sha256"] != hashlib.sha256(data).hexdigest():
                return False
        path.touch()  # so that the next run does not hash the tar again
    return True
