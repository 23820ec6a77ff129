"""The plan of a build, made before it starts and stored in `build.json`.

The clips of each shard depend on the number of clips alone. So a shard's content depends neither on rejected clips
elsewhere nor on the process that packs it. All attempts and parts of one build must have the same plan. The number of
workers, the part and the time limit do not affect the shards and are not in the plan.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from data_tools.errors import DataError
from data_tools.packing.prepare import Recipe
from data_tools.packing.sources import Columns, Source
from data_tools.shards import shard_name

VERSION = 1

Numbers = range | np.ndarray  # numbers of clips in the source, ascending, int64 (n,)


@dataclass(frozen=True)
class ShardTask:
    """A shard to pack.

    Attributes:
        dataset: folder in the output: "", "train" or "val".
        number: of the shard.
        clips: indices into the dataset's clips.
    """

    dataset: str
    number: int
    clips: range

    @property
    def name(self) -> str:
        return shard_name(self.number)


@dataclass(frozen=True)
class Part:
    """Part `index` of `count`, counted from 0, of an array job. Raises DataError if there is no such part."""

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise DataError(f"there is no part {self.index}/{self.count}: the first of N is 0/N, the last is N-1/N")

    def of(self, tasks: Sequence[ShardTask]) -> Sequence[ShardTask]:
        """The part's tasks: consecutive ones, because neighbouring clips are often in one input file."""
        first, end = (len(tasks) * number // self.count for number in (self.index, self.index + 1))
        return tasks[first:end]


def plan(clips: int, samples_per_shard: int) -> list[range]:
    """The clips of each shard, as indices; a function of the counts alone."""
    return [range(start, min(start + samples_per_shard, clips)) for start in range(0, clips, samples_per_shard)]


def tasks_of(settings: dict) -> list[ShardTask]:
    """The shards of a build, from the content of `build.json`."""
    return [
        ShardTask(dataset, number, clips)
        for dataset, count in settings["datasets"].items()
        for number, clips in enumerate(plan(count, settings["samples_per_shard"]))
    ]


def split(source: Source, val_share: float) -> dict[str, Numbers]:
    """Assign clips to datasets, by a hash of their origins: clips of one origin go to the same dataset.

    Returns:
        {"": all} if `val_share` is 0, else {"train": …, "val": …}.

    Raises:
        DataError: one side would be empty, or all clips are of one recording.
    """
    if val_share == 0:
        return {"": range(len(source))}
    shares = np.fromiter(map(_share, source.origins()), float, len(source))
    if len(source) > 1 and (shares == shares[0]).all():
        raise DataError(
            f"a val share leaves none for one side: all {len(source)} clips are of one recording; name a column that "
            "tells them apart by --source-column"
        )
    held_out = shares < val_share
    sides: dict[str, Numbers] = {"train": np.flatnonzero(~held_out), "val": np.flatnonzero(held_out)}
    for name, clips in sides.items():
        if not len(clips):
            raise DataError(f"a val share of {val_share:g} of {len(source)} clips leaves none for {name}: change it")
    return sides


def describe_build(
    input: str | Path,
    source: Source,
    datasets: dict[str, Numbers],
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
        "files": source.state,
        "columns": asdict(columns),
        "recipe": asdict(recipe),
        "samples_per_shard": samples_per_shard,
        "val_share": val_share,
        "datasets": {name: len(clips) for name, clips in datasets.items()},
    }
    return json.loads(json.dumps(settings, default=str))


def difference(earlier: dict, now: dict) -> str:
    """The differences between two plans, in words; "" if there are none.

    A plan of an earlier version, or of very many files, says nothing of them.
    """
    if not earlier.get("files"):
        now = {name: value for name, value in now.items() if name != "files"}
    pairs = ((name, earlier.get(name), now.get(name)) for name in {**earlier, **now})
    told = {
        "fingerprint": "the clips of the input have changed",
        "files": "files of the input have changed since they were packed",
        "datasets": "the number of clips has changed",
        "version": "another version of this program started it",
    }
    return "; ".join(told.get(name, f"{name} was {_brief(a)}, is now {_brief(b)}") for name, a, b in pairs if a != b)


def _brief(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _share(origin: str | int) -> float:
    """A hash of the origin in [0, 1)."""
    digest = blake2b(str(origin).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
