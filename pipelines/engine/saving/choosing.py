"""Chooses the checkpoint that a run continues from or a command reads: the newest one whose files are undamaged.

COMPLETE holds the size and the checksum of every other file of the checkpoint.
"""

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from zlib_ng.zlib_ng import crc32

from pipelines.cli.steps import NAME, run_of
from pipelines.engine import distributed
from pipelines.engine.logs import LOGS
from pipelines.engine.saving.folders import COMPLETE, complete, set_aside, step_of
from vtok.config import ConfigError

PIECE = 1 << 24  # bytes that are read at once
THREADS = 8  # files that are read at once: crc32 and reading release Python's lock


def seal(path: Path) -> dict[str, int]:
    """Returns a file's size in bytes and its CRC-32."""
    size = checksum = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            size, checksum = size + len(piece), crc32(piece, checksum)
    return {"bytes": size, "crc32": checksum}


def seals_in(folder: Path) -> dict[str, dict[str, int]]:
    """Returns size and checksum of each file of a complete checkpoint, by name. Empty before checksums were kept.

    Raises:
        OSError, ValueError: The marker cannot be read.
    """
    content = json.loads((folder / COMPLETE).read_bytes())
    if not isinstance(content, dict):
        raise ValueError("no marker")
    return content.get("files", {})


def damage(folder: Path, part: slice = slice(None)) -> str | None:
    """Describes the damage to a checkpoint in one line, or returns ``None`` if there is none.

    Args:
        folder: The checkpoint.
        part: The files to check, among those sorted by name.
    """
    try:
        seals = seals_in(folder)
    except (OSError, ValueError):
        return f"{folder / COMPLETE} cannot be read"
    with ThreadPoolExecutor(THREADS) as threads:
        return next(
            filter(None, threads.map(lambda name: fault(folder / name, seals[name]), sorted(seals)[part])), None
        )


def fault(path: Path, expected: dict[str, int]) -> str | None:
    """Describes how a file differs from what was written."""
    try:
        size = path.stat().st_size
        if size != expected["bytes"]:
            return f"{path} has {size} bytes of {expected['bytes']}"
        if seal(path) != expected:
            return f"{path} has changed since it was written (its checksum differs)"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    return None


def first_sound(candidates: Sequence[list[Path]]) -> list[Path]:
    """Returns the first candidate without damage, and says which ones it leaves out. All ranks call this.

    Each rank checks its share of the files.

    Args:
        candidates: Checkpoints by preference. Each is a list of folders that belong together.

    Raises:
        ConfigError: All are damaged.
    """
    ranks = distributed.world_size()
    share = slice(distributed.rank() % ranks, None, ranks)
    left_out = []
    for folders in candidates:
        faults = distributed.gather_lists([found for folder in folders if (found := damage(folder, share))])
        first = next((found for of_rank in faults for found in of_rank), None)
        if first is None:
            return folders
        left_out.append(first)
        if distributed.rank() == 0 and len(left_out) < len(candidates):
            print(f"warning: {first}: taking the checkpoint before", file=sys.stderr, flush=True)
    raise ConfigError(f"no checkpoint can be used: {'; '.join(left_out)}")


def candidates(output: Path, step: int | None = None) -> list[Path]:
    """Lists the complete checkpoints of a run, newest first; with a step only that one.

    Raises:
        ConfigError: The run has no complete checkpoint of that step.
    """
    found = complete(output)[::-1]
    if step is None:
        return found
    named = [folder for folder in found if step_of(folder) == step]
    if not named:
        steps = ", ".join(str(step_of(folder)) for folder in reversed(found)) or "no step"
        raise ConfigError(f"{output} has no complete checkpoint of step {step}; it has those of {steps}")
    return named


def located(checkpoint: Path) -> tuple[Path, Path]:
    """Returns the run and the checkpoint that a command names: a run's folder, or one of its checkpoints' folders.

    Of a run it takes the newest undamaged checkpoint.

    Raises:
        ConfigError: There is no such run or checkpoint, or all are damaged.
    """
    run = run_of(checkpoint)
    if (checkpoint / COMPLETE).is_file():
        return run, first_sound([[checkpoint]])[0]
    found = candidates(run, step_of(checkpoint) if NAME.fullmatch(checkpoint.name) else None)
    if not found:
        raise ConfigError(f"{run} holds no complete checkpoint: give the output folder of a training run")
    return run, first_sound([[folder] for folder in found])[0]


def set_later_aside(output: Path, step: int) -> None:
    """Sets aside checkpoints after the one that a run goes on from. Rotation would prefer them to new ones."""
    for folder in complete(output):
        if step_of(folder) > step:
            print(f"the run goes on from step {step}: {folder} is kept as {set_aside(folder)}", file=sys.stderr)


def set_logs_aside(output: Path) -> None:
    """Sets aside what an earlier attempt has logged where a run starts at step 0. A line says so."""
    found = [path for path in (output / name for name in LOGS) if path.is_file() and path.stat().st_size]
    if found:
        names = ", ".join(set_aside(path).name for path in found)
        print(
            f"warning: {output} has no complete checkpoint: the run starts at step 0, and what was logged before is "
            f"kept as {names}",
            file=sys.stderr,
            flush=True,
        )
