"""Begin a build: write its plan, or find that the output already holds this build.

A build writes only where all shards are its own, and never into a folder of its input.
"""

import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from data_tools.errors import DataError
from data_tools.packing.plan import difference
from data_tools.packing.sources import Source
from data_tools.packing.state import PLAN, clear, names_of, read_plan
from data_tools.shards.layout import MANIFEST, MANIFEST_ROWS, SIDECAR
from data_tools.shards.rejected import REJECTED

DATASET_FILES = ("shard-*.tar", f"*{SIDECAR}", MANIFEST, MANIFEST_ROWS, REJECTED)


def begin(input: str | Path, source: Source, output: Path, settings: dict, overwrite: bool) -> None:
    """Start the build that `settings` describe in `output`, or check that `output` holds this build.

    Args:
        input: as the user gave it.
        source: its clips.
        output: folder of the build.
        settings: the content of `build.json` (see `plan.describe_build`).
        overwrite: delete the files of an existing build first.

    Raises:
        DataError: `output` holds another build or files of others, or the build would write into the input.
    """
    found = _found(output, settings)  # before the plan is read: other parts write their shards after it
    earlier = read_plan(output)
    if earlier and not overwrite:
        _refuse_change(output, earlier, settings)
    _refuse_foreign(found, output, earlier)
    if earlier and not overwrite:
        return
    written = {output / dataset for plan in (settings, earlier or {}) for dataset in ("", *plan.get("datasets", ()))}
    _refuse_input(input, source, written)
    if earlier:
        clear(output, earlier)
    output.mkdir(parents=True, exist_ok=True)
    _write_once(output / PLAN, json.dumps(settings, indent=1).encode())
    _refuse_change(output, read_plan(output) or {}, settings)


def refuse_foreign(output: Path, plan: dict) -> None:
    """Raise DataError if a folder of a build's datasets holds a shard or a manifest that the build did not make."""
    _refuse_foreign(_found(output, plan), output, plan)


def _found(output: Path, plan: dict) -> list[Path]:
    """The files of datasets in the folders that a build writes to. The output of another build is one in `train`."""
    folders = [output / dataset for dataset in dict.fromkeys(("", *plan["datasets"]))]
    files = [path for folder in folders for pattern in DATASET_FILES for path in sorted(folder.glob(pattern))]
    return files + [folder / PLAN for folder in folders[1:] if (folder / PLAN).exists()]


def _refuse_foreign(found: Iterable[Path], output: Path, plan: dict | None) -> None:
    datasets = plan["datasets"] if plan else ()
    own = {output / dataset / name for dataset in datasets for name in names_of(plan or {}, dataset)}
    if foreign := next((path for path in found if path not in own), None):
        raise DataError(
            f"{foreign.parent} holds {foreign.name}, which no build with the {PLAN} of {output} made: choose another "
            "folder, or move these files away first"
        )


def _refuse_change(output: Path, earlier: dict, settings: dict) -> None:
    if changes := difference(earlier, settings):
        raise DataError(f"{output} already holds another build: {changes}: choose another folder, or --overwrite")


def _refuse_input(input: str | Path, source: Source, written: Iterable[Path]) -> None:
    """Raise DataError if the input, or a file of it, lies directly in a folder that the build writes to or clears."""
    input = Path(input)
    places = {input if input.is_dir() else input.parent, *(path.parent for path in source.files)}
    real = {os.path.realpath(place) for place in places}
    if folder := next((folder for folder in sorted(written) if os.path.realpath(folder) in real), None):
        raise DataError(f"the input lies in {folder}, where the build would write: choose another output")


def _write_once(path: Path, content: bytes) -> None:
    """Write a file atomically, unless a process of another part has written it first."""
    own = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.part")
    own.write_bytes(content)
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()
