"""The folders of a run's checkpoints: which ones count, and what may be removed.

Users copy checkpoints, link them to other disks and leave notes among them. So a checkpoint counts only if its folder
has exactly the name that a run gives it, and only files that a run has written are removed, each by its name.
"""

import os
import re
from itertools import count
from pathlib import Path

from pipelines.cli.steps import NAME, folder_of, stages_in

COMPLETE = "COMPLETE"
STATE = "state.json"
STATISTICS = "feature_scale.safetensors"
CONFIG = "config.yaml"
# The names of what a run writes there. A process that is killed in safetensors' ``save_file`` leaves a ".tmp".
WRITTEN = re.compile(
    rf"\.tmp[A-Za-z0-9]{{6}}|rank_\d{{5,}}\.(safetensors|part)|{re.escape(STATISTICS)}|{re.escape(STATE)}|{re.escape(CONFIG)}|"
    rf"{COMPLETE}(\.part)?"
)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def begun_folders(output: Path) -> list[Path]:
    """Lists the folders of a run's checkpoints by step, incomplete ones included. Links count."""
    found = [path for path in output.glob("checkpoints/step_*") if NAME.fullmatch(path.name) and path.is_dir()]
    return sorted((path for path in found if path == folder_of(output, step_of(path))), key=step_of)


def complete(output: Path) -> list[Path]:
    """Lists a run's complete checkpoints, oldest first. One that the run died writing is not complete."""
    return [folder for folder in begun_folders(output) if (folder / COMPLETE).is_file()]


def begun(output: Path) -> bool:
    """Whether a run has taken a step there; one that failed before may be started again with other settings."""
    return begun_alone(output) or bool(begun_stages(output))


def begun_alone(output: Path) -> bool:
    """Whether a run without stages, or one stage, has taken a step there."""
    if not os.path.isdir(output):  # which never raises, whatever the name
        return False
    log = output / "log.jsonl"
    return (log.is_file() and log.stat().st_size > 0) or bool(complete(output))


def begun_stages(output: Path) -> list[Path]:
    """Lists the folders of those stages of a run that have taken a step."""
    return list(filter(begun_alone, stages_in(output))) if os.path.isdir(output) else []


def newest(output: Path) -> Path | None:
    """Returns the newest complete checkpoint of a run, or ``None``."""
    return (complete(output) or [None])[-1]


def erase(folder: Path) -> None:
    """Removes what a run has written into a checkpoint's folder, its marker first, and the folder if it is then empty.

    Raises:
        OSError: The system does not let a file go.
    """
    (folder / COMPLETE).unlink(missing_ok=True)
    for path in list(folder.iterdir()):
        if WRITTEN.fullmatch(path.name):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def clear(folder: Path) -> None:
    """Empties a checkpoint's folder of what a run has written, if it exists. What is not a folder is set aside.

    Raises:
        OSError: The system forbids it.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        set_aside(folder)
    elif folder.exists():
        erase(folder)


def make_empty(folder: Path) -> None:
    """Makes a checkpoint's folder, which is empty of what a run has written.

    Raises:
        OSError: The disk is full, or something else forbids it.
    """
    clear(folder)
    folder.mkdir(parents=True, exist_ok=True)


def set_aside(path: Path) -> Path:
    """Renames a folder, file or link such that no run takes it for a checkpoint. Returns its new path."""
    names = (path.with_name(f"{path.name}.aside{number or ''}") for number in count())
    free = next(name for name in names if not os.path.lexists(name))
    path.rename(free)
    return free
