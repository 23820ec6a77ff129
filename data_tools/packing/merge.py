"""The last step of a build: merge the shards' lists into one manifest and one list of rejected clips.

All parts of an array job write to one folder, so no file has to move. The part that finds all shards finished merges,
under a lock. Merging again changes nothing, unless a file was lost meanwhile.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.errors import DataError
from data_tools.packing.beginning import refuse_foreign
from data_tools.packing.plan import ShardTask, tasks_of
from data_tools.packing.reopen import fits, rejects_of, reopen
from data_tools.packing.state import PLAN, is_finished, is_packed, locked, own_files, read_plan, rejects_path
from data_tools.shards import read_sidecar, sidecar_path, write_manifest
from data_tools.shards.layout import MANIFEST_ROWS
from data_tools.shards.manifest import read_manifest, read_rows
from data_tools.shards.rejected import REJECTED, read_rejected, write_rejected

MERGE_PATIENCE = 600.0  # seconds to wait for another part that is merging


@dataclass(frozen=True)
class BuildSummary:
    """Totals of a build.

    Attributes:
        packed: clips in shards.
        rejected: clips left out.
        shards: finished shards.
        bytes: of all shards.
        reasons: number of rejected clips, by reason.
        unfinished: missing shards of other parts. If above 0, the other totals are of this part only.
    """

    packed: int = 0
    rejected: int = 0
    shards: int = 0
    bytes: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    unfinished: int = 0


def merge(output: str | Path) -> BuildSummary:
    """Finish a build after all its parts are packed.

    Args:
        output: folder of the build.

    Raises:
        DataError: there is no build, shards are missing or of others, or every clip of a dataset was rejected.
    """
    output = Path(output)
    settings = read_plan(output)
    if settings is None:
        raise DataError(f"{output} holds no build ({PLAN}): run `vtok-shards build INPUT --output {output}`")
    refuse_foreign(output, settings)
    tasks = tasks_of(settings)
    with locked(output, len(tasks), 1, MERGE_PATIENCE):
        if not is_merged(output, settings):
            reopen(output, tasks)
            _merge(output, settings, tasks)
        for task in tasks:
            rejects_path(output, task).unlink(missing_ok=True)
        for leftover in [path for path in own_files(output, settings) if path.suffix == ".part"]:
            leftover.unlink()  # left by a killed process
    return _summarise(output, settings)


def reopen_damaged(output: Path, settings: dict, tasks: Sequence[ShardTask]) -> None:
    """Prepare a build that is not merged, or has lost a file since, for packing what is missing (see `reopen`)."""
    with locked(output, len(tasks), 1, MERGE_PATIENCE):
        if not is_merged(output, settings):
            reopen(output, tasks)


def is_merged(output: Path, settings: dict) -> bool:
    """Whether every dataset of the build has a manifest of all its shards, and these shards.

    The index writes a manifest too, of a build that is not finished.
    """
    tasks = tasks_of(settings)
    datasets = settings["datasets"]
    return all(_is_whole(output, dataset, [one for one in tasks if one.dataset == dataset]) for dataset in datasets)


def _is_whole(output: Path, dataset: str, tasks: Sequence[ShardTask]) -> bool:
    folder = output / dataset
    try:
        manifest = read_manifest(folder)
        read_rows(folder / MANIFEST_ROWS, manifest, folder)
    except DataError:
        return False
    listed = {shard["name"] for shard in manifest["shards"]}
    if not all(is_packed(folder, name) for name in listed):
        return False
    if any(rejects_path(output, task).exists() for task in tasks):
        return False  # a merge deletes these lists when it has written the manifest
    return all(task.name in listed for task in tasks) or fits(*rejects_of(folder, tasks))


def unfinished(output: Path, tasks: Sequence[ShardTask]) -> list[ShardTask]:
    """The tasks whose shards are not finished."""
    return [task for task in tasks if not is_finished(output, task)]


def summarise_tasks(output: Path, tasks: Sequence[ShardTask], missing: int) -> BuildSummary:
    """Totals of some finished shards, while `missing` others are unfinished."""
    paths = [sidecar_path(output / task.dataset, task.name) for task in tasks]
    sidecars = [read_sidecar(path) for path in paths if path.exists()]
    reasons = Counter(record["reason"] for task in tasks for record in read_rejected(rejects_path(output, task)))
    packed, size = (sum(numbers) for numbers in ([len(s["samples"]) for s in sidecars], [s["bytes"] for s in sidecars]))
    return BuildSummary(packed, reasons.total(), len(sidecars), size, dict(reasons), missing)


def _merge(output: Path, settings: dict, tasks: Sequence[ShardTask]) -> None:
    """Write the list of rejected clips and the manifest of each dataset. Raises DataError as `merge`."""
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
    """Totals of a merged build."""
    manifests = [read_manifest(output / dataset) for dataset in settings["datasets"]]
    rejects = [line for dataset in settings["datasets"] for line in read_rejected(output / dataset / REJECTED)]
    return BuildSummary(
        packed=sum(manifest["samples"] for manifest in manifests),
        rejected=len(rejects),
        shards=sum(len(manifest["shards"]) for manifest in manifests),
        bytes=sum(manifest["bytes"] for manifest in manifests),
        reasons=dict(Counter(line["reason"] for line in rejects)),
    )
