"""Open a merged build again that has lost a file: its shards get their own lists of rejected clips back.

A merge replaces these lists by one of the whole dataset, in the order of the clips. A shard's clips that are not packed
are rejected. So the number of its samples tells how many lines of the whole list are its own.
"""

from collections.abc import Sequence
from pathlib import Path

from data_tools.errors import DataError
from data_tools.packing.plan import ShardTask
from data_tools.packing.state import rejects_path
from data_tools.shards import read_sidecar, sidecar_path
from data_tools.shards.layout import MANIFEST, MANIFEST_ROWS
from data_tools.shards.manifest import read_manifest
from data_tools.shards.rejected import REJECTED, read_rejected, write_rejected


def reopen(output: Path, tasks: Sequence[ShardTask]) -> None:
    """Bring a build back to the state before its merge. Does nothing to a build that was not merged.

    Args:
        output: folder of the build.
        tasks: all its shards.

    Raises:
        DataError: a list of rejected clips is damaged.
    """
    for dataset in dict.fromkeys(task.dataset for task in tasks):
        _give_back(output, [task for task in tasks if task.dataset == dataset])
        for name in (MANIFEST, MANIFEST_ROWS):
            (output / dataset / name).unlink(missing_ok=True)


def rejects_of(folder: Path, tasks: Sequence[ShardTask]) -> tuple[list[int], list[dict]]:
    """How many clips of each shard are not packed, and the build's lines in the dataset's list of rejects."""
    # The index writes lines of its own, with a field "shard", and counts them in its sidecars.
    lines = [line for line in read_rejected(folder / REJECTED) if "shard" not in line]
    return [len(task.clips) - _packed(folder, task) for task in tasks], lines


def fits(counts: Sequence[int], lines: Sequence[dict]) -> bool:
    """Whether the lines are those of all clips that are not packed (see `rejects_of`)."""
    return sum(counts) == len(lines) and min(counts) >= 0


def _give_back(output: Path, tasks: Sequence[ShardTask]) -> None:
    """Write the missing lists of a dataset's shards."""
    folder = output / tasks[0].dataset
    missing = [task for task in tasks if not rejects_path(output, task).exists()]
    if not missing or not (folder / REJECTED).exists():
        return
    counts, lines = rejects_of(folder, tasks)
    if not fits(counts, lines):
        # The lines cannot be told apart: what may have rejected clips is packed anew.
        for task, count in zip(tasks, counts):
            if count and task in missing:
                sidecar_path(folder, task.name).unlink(missing_ok=True)
        return
    for task, count in zip(tasks, counts):
        own, lines = lines[:count], lines[count:]
        if task in missing:
            write_rejected(rejects_path(output, task), own)


def _packed(folder: Path, task: ShardTask) -> int:
    """The number of a shard's clips that were packed: as its sidecar says, else the manifest; 0 if neither lists it."""
    try:
        sidecar = read_sidecar(sidecar_path(folder, task.name))
        return len(sidecar["samples"]) + len(sidecar.get("rejected", ()))
    except (OSError, DataError):
        pass
    try:
        shards = read_manifest(folder)["shards"]
    except DataError:
        return 0
    return next((shard["samples"] for shard in shards if shard["name"] == task.name), 0)
