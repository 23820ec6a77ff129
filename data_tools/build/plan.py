"""What a build will do, decided before it begins and written down in `build.json`.

Which clips go to which shard follows from the number of clips alone, so that a shard's content depends neither on
what becomes of other clips nor on who packs it. Attempts and parts of one build must agree on all that is in the
plan; the number of workers, the part and the time limit are not in it, since the shards do not depend on them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from data_tools.build.prepare import Recipe
from data_tools.build.sources import Columns, Source
from data_tools.errors import DataError
from data_tools.shards import shard_name

VERSION = 1


@dataclass(frozen=True)
class ShardTask:
    """A shard to pack: `clips` are places in the list of clips of its dataset."""

    dataset: str  # folder in the output: "", or "train" or "val"
    number: int
    clips: range

    @property
    def name(self) -> str:
        return shard_name(self.number)


@dataclass(frozen=True)
class Part:
    """The share of an array job: part `index` of `count`, from 0."""

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise DataError(f"part {self.index}/{self.count} is none: the first of N is 0/N, the last N-1/N")

    def of(self, tasks: Sequence[ShardTask]) -> Sequence[ShardTask]:
        """Neighbours, since they often lie in one file of the input."""
        first, end = (len(tasks) * number // self.count for number in (self.index, self.index + 1))
        return tasks[first:end]


def plan(clips: int, samples_per_shard: int) -> list[range]:
    """The clips of each shard, by number: a function of the count alone."""
    return [range(start, min(start + samples_per_shard, clips)) for start in range(0, clips, samples_per_shard)]


def tasks_of(settings: dict) -> list[ShardTask]:
    """The shards of a build, from what its `build.json` says."""
    return [
        ShardTask(dataset, number, clips)
        for dataset, count in settings["datasets"].items()
        for number, clips in enumerate(plan(count, settings["samples_per_shard"]))
    ]


def split(source: Source, val_share: float) -> dict[str, Sequence[int]]:
    """The clips of each dataset of the output, ascending. Clips of one origin go to the same one."""
    if val_share == 0:
        return {"": range(len(source))}
    held_out = np.fromiter((_share(origin) < val_share for origin in source.origins()), bool, len(source))
    sides = {"train": np.flatnonzero(~held_out), "val": np.flatnonzero(held_out)}
    for name, clips in sides.items():
        if not len(clips):
            raise DataError(f"a val share of {val_share:g} of {len(source)} clips leaves none for {name}: change it")
    return sides


def describe_build(
    input: str | Path,
    source: Source,
    datasets: dict[str, Sequence[int]],
    columns: Columns,
    recipe: Recipe,
    samples_per_shard: int,
    val_share: float,
) -> dict:
    """The content of `build.json`: plain JSON values."""
    settings = {
        "version": VERSION,
        "input": str(Path(input).resolve()),
        "fingerprint": source.fingerprint,
        "columns": asdict(columns),
        "recipe": asdict(recipe),
        "samples_per_shard": samples_per_shard,
        "val_share": val_share,
        "datasets": {name: len(clips) for name, clips in datasets.items()},
    }
    return json.loads(json.dumps(settings, default=str))


def difference(earlier: dict, now: dict) -> str:
    """What differs between two builds, in words; "" for nothing."""
    pairs = ((name, earlier.get(name), now.get(name)) for name in {**earlier, **now})
    told = {
        "fingerprint": "the clips of the input have changed",
        "datasets": "the number of clips has changed",
        "version": "it was begun by another version of this program",
    }
    return "; ".join(told.get(name, f"{name} was {_brief(a)}, is now {_brief(b)}") for name, a, b in pairs if a != b)


def _brief(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _share(origin: str | int) -> float:
    """In [0, 1), the same for equal origins whatever else is in the input."""
    digest = blake2b(str(origin).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
