"""Several processes share the runs of a study: each makes one that nobody else makes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from data_tools.locks import locked
from pipelines.shapes_study.stages import slug

PAUSE = 30  # seconds between two reports, at least

R = TypeVar("R")

# An arm and a seed.
Run = tuple[str, int]


def make_all(
    runs: list[Run], output: Path, done: dict[Run, R], make: Callable[[str, int], R], write: Callable[[], Path]
) -> Path:
    """Makes the runs that are not in ``done``, and puts them there.

    Args:
        runs: All runs, in the order in which they are to be made.
        output: Folder of the study; its locks lie in ``locks``.
        done: The results so far.
        make: Makes a run. It costs nothing if another process has made the run.
        write: Writes the report. It is called at the start, after a run if the last time is ``PAUSE`` ago, and at last.

    Returns:
        What ``write`` returned at last.
    """
    path, last = write(), time.monotonic()
    while missing := [run for run in runs if run not in done]:
        run = free_or_first(missing, output)
        with locked(lock_of(run, output)):
            done[run] = make(*run)
        if len(done) == len(runs) or time.monotonic() - last > PAUSE:
            path, last = write(), time.monotonic()
    return path


def free_or_first(runs: list[Run], output: Path) -> Run:
    """Returns the first run that no other process holds, or the first run if all are held.

    Another process may have finished the returned run; then its stages are done and cost nothing.
    """
    for run in runs:
        with locked(lock_of(run, output), wait=False) as free:
            if free:
                return run
    return runs[0]


def lock_of(run: Run, output: Path) -> Path:
    """Returns the lock of a run."""
    name, seed = run
    return output / "locks" / slug(f"{name}-{seed}")
