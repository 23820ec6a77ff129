"""The build: from a folder of clips to a dataset of shards.

Which clips go to which shard is planned first, from the number of clips alone, so that a shard's content does not
depend on what becomes of the others. Then shard by shard: each clip is loaded, decoded in full, and packed or
rejected. What is rejected goes to `rejected.jsonl` with its reason, and the build goes on.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from .errors import BadVideo, DataError
from .shards import RawSample, write_manifest, write_shard
from .sources import Item, discover
from .video import validate

REJECTED = "rejected.jsonl"


@dataclass(frozen=True)
class BuildSummary:
    """What a build did; `reasons` counts the rejected clips by reason."""

    packed: int
    rejected: int
    shards: int
    bytes: int
    reasons: dict[str, int]


def build_shards(
    input: str | Path, output: str | Path, samples_per_shard: int = 1000, progress: bool = True
) -> BuildSummary:
    """Build a dataset at `output` from the clips at `input` (see `sources`).

    The same input gives the same bytes. Raises DataError for an input that cannot be used, an output that is
    already in use, and a build that rejects every clip.
    """
    if samples_per_shard < 1:
        raise DataError(f"samples per shard must be at least 1, not {samples_per_shard}")
    items, output = discover(input), Path(output)
    _refuse_used(output)
    output.mkdir(parents=True, exist_ok=True)

    reasons = Counter()
    with (
        (output / REJECTED).open("w", encoding="utf-8") as log,
        tqdm(total=len(items), unit="clip", disable=not progress) as bar,
    ):

        def reject(item: Item, problem: BadVideo) -> None:
            reasons[problem.reason] += 1
            record = {"path": item.name, "reason": problem.reason, "detail": problem.detail}
            print(json.dumps(record, ensure_ascii=False), file=log, flush=True)

        for number, planned in enumerate(plan(len(items), samples_per_shard)):
            clips = ((position, items[position]) for position in planned)
            write_shard(output, number, _accepted(clips, reject, bar.update))

    rejected = sum(reasons.values())
    if rejected == len(items):
        raise DataError(f"all {rejected} clips were rejected; {output / REJECTED} says why for each")
    manifest = write_manifest(output)
    return BuildSummary(manifest["samples"], rejected, len(manifest["shards"]), manifest["bytes"], dict(reasons))


def plan(clips: int, samples_per_shard: int) -> list[range]:
    """The clips of each shard, by number: a function of the count alone."""
    return [range(start, min(start + samples_per_shard, clips)) for start in range(0, clips, samples_per_shard)]


def prepare(number: int, item: Item) -> RawSample:
    """Load and check one clip: the bytes that pass are the bytes that are packed. Raises BadVideo."""
    try:
        clip = item.load()
    except OSError as error:
        raise BadVideo("unreadable", str(error)) from error
    facts = validate(clip.video)
    return RawSample(f"{number:09d}", clip.video, clip.extension, clip.meta | {"facts": facts.to_dict()})


def _accepted(
    clips: Iterable[tuple[int, Item]], reject: Callable[[Item, BadVideo], None], done: Callable[[], None]
) -> Iterator[RawSample]:
    for number, item in clips:
        try:
            sample = prepare(number, item)
        except BadVideo as problem:
            reject(item, problem)
        else:
            yield sample
        done()


def _refuse_used(output: Path) -> None:
    if (output / "manifest.json").exists():
        raise DataError(f"{output} already holds a dataset: choose another folder or delete it")
    if output.is_dir() and any(output.glob("shard-*.tar")):
        raise DataError(f"{output} holds shards without a manifest: choose another folder or delete it")
