"""The last step of a build: the lists of its shards become one manifest and one list of rejects.

The parts of an array job pack their shards into one folder, so that nothing has to be moved. Whoever sees that all
shards are there does this step, under a lock; doing it again changes nothing.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.build.plan import ShardTask, tasks_of
from data_tools.build.state import PLAN, is_finished, locked, read_plan, rejects_path
from data_tools.errors import DataError
from data_tools.shards import read_sidecar, sidecar_path, write_manifest
from data_tools.shards.layout import MANIFEST
from data_tools.shards.rejected import REJECTED, read_rejected, write_rejected

MERGE_PATIENCE = 600.0  # seconds, for another part that is merging


@dataclass(frozen=True)
class BuildSummary:
    """What a build holds; `reasons` counts the rejected clips by reason.

    unfinished: shards of other parts that are still missing; the rest then speaks of this part alone.
    """

    packed: int = 0
    rejected: int = 0
    shards: int = 0
    bytes: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    unfinished: int = 0


def merge(output: str | Path) -> BuildSummary:
    """Finish the build at `output`, all of whose parts have been packed.

    Raises DataError where shards are missing, where it is no build, and where every clip of a dataset was rejected.
    """
    output = Path(output)
    settings = read_plan(output)
    if settings is None:
        raise DataError(f"{output} holds no build ({PLAN}): run `vtok-shards build INPUT --output {output}`")
    tasks = tasks_of(settings)
    with locked(output, len(tasks), 1, MERGE_PATIENCE):
        if not is_merged(output, settings):
            _merge(output, settings, tasks)
        for task in tasks:
            rejects_path(output, task).unlink(missing_ok=True)
        for leftover in [path for dataset in settings["datasets"] for path in (output / dataset).glob("*.part")]:
            leftover.unlink()  # of a process that was killed
    return _summarise(output, settings)


def is_merged(output: Path, settings: dict) -> bool:
    return all((output / dataset / MANIFEST).exists() for dataset in settings["datasets"])


def unfinished(output: Path, tasks: Sequence[ShardTask]) -> list[ShardTask]:
    return [task for task in tasks if not is_finished(output, task)]


def summarise_tasks(output: Path, tasks: Sequence[ShardTask], missing: int) -> BuildSummary:
    """Of some finished shards, while `missing` others are not."""
    paths = [sidecar_path(output / task.dataset, task.name) for task in tasks]
    sidecars = [read_sidecar(path) for path in paths if path.exists()]
    reasons = Counter(record["reason"] for task in tasks for record in read_rejected(rejects_path(output, task)))
    packed, size = (sum(numbers) for numbers in ([len(s["samples"]) for s in sidecars], [s["bytes"] for s in sidecars]))
    return BuildSummary(packed, reasons.total(), len(sidecars), size, dict(reasons), missing)


def _merge(output: Path, settings: dict, tasks: Sequence[ShardTask]) -> None:
    missing = unfinished(output, tasks)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(tasks)} shards at {output} are not finished, the first is "
            f"{Path(missing[0].dataset, missing[0].name)}: run the missing parts again"
        )
    for dataset, clips in settings["datasets"].items():
        folder = output / dataset
        paths = [rejects_path(output, task) for task in tasks if task.dataset == dataset]
        rejects = [record for path in paths for record in read_rejected(path)]
        write_rejected(folder / REJECTED, rejects)
        if len(rejects) == clips:
            raise DataError(f"all {clips} clips were rejected; {folder / REJECTED} says why for each")
        write_manifest(folder)


def _summarise(output: Path, settings: dict) -> BuildSummary:
    manifests = [json.loads((output / dataset / MANIFEST).read_text()) for dataset in settings["datasets"]]
    rejects = [line for dataset in settings["datasets"] for line in read_rejected(output / dataset / REJECTED)]
    return BuildSummary(
        packed=sum(manifest["samples"] for manifest in manifests),
        rejected=len(rejects),
        shards=sum(len(manifest["shards"]) for manifest in manifests),
        bytes=sum(manifest["bytes"] for manifest in manifests),
        reasons=dict(Counter(line["reason"] for line in rejects)),
    )
