"""Notes in a file what an output was asked for, so that another start cannot mix its outputs with other ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.cli.launcher import rank_and_ranks
from pipelines.cli.steps import NAME
from vtok.config import ConfigError, require


def write_whole(path: Path, text: str) -> None:
    """Writes a file that appears only when it is complete, though several ranks may write it at the same time."""
    part = path.with_name(f"{path.name}.rank{rank_and_ranks()[0]}.part")
    part.write_text(text)
    part.replace(path)


def write_note(path: Path, asked: Mapping[str, Any]) -> None:
    """Notes what is asked for, as JSON, and makes the folder of the note."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asked, indent=1) + "\n")


def noted(path: Path) -> dict[str, Any]:
    """Returns what a note says; nothing if there is no note.

    Raises:
        ConfigError: The file is no note.
    """
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} does not say what was asked for: delete it if the output was begun with these settings, else "
            "choose another --output"
        ) from error


def require_same(path: Path, asked: Mapping[str, Any]) -> None:
    """Raises ConfigError if a note says that something else was asked for, or if it cannot be read."""
    if before := noted(path):
        require_unchanged(path, before, asked)


def require_unchanged(path: Path, before: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises ConfigError if a note says ``before``, and something else is asked for."""
    require_same_step(path, before.get("weights"), asked.get("weights"))
    changed = [name for name in {**before, **asked} if before.get(name) != asked.get(name)]
    require(
        not changed,
        f"{path} says that the output was begun with other {', '.join(changed)}: choose another --output, or delete "
        "it to begin anew",
    )


def require_same_step(path: Path, before: str | None, now: str | None) -> None:
    """Raises ConfigError if two folders of weights are of different steps of one run: it may have trained on since."""
    if before == now or not before or not now or Path(before).parent != Path(now).parent:
        return
    then, new = (NAME.fullmatch(Path(weights).name) for weights in (before, now))
    if then and new:
        raise ConfigError(
            f"{path} says that the output was begun with step {int(then[1])} of the run, not with step {int(new[1])}: "
            f"pass --step {int(then[1])} to go on, or choose another --output"
        )
