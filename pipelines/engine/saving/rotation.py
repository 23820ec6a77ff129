"""Removes a run's old checkpoints: all but the latest, those of every n-th step, and the best one by validation."""

import math
import sys
from pathlib import Path

from pipelines.config import CheckpointConfig
from pipelines.engine.logs import entry
from pipelines.engine.saving.folders import COMPLETE, begun_folders, complete, erase, step_of


def remove_old(output: Path, config: CheckpointConfig) -> None:
    """Removes the checkpoints that a run does not keep, and what it left of incomplete ones.

    Links stay, and what they lead to. What cannot be read or removed is told of and does not end the run.
    """
    steps = [step_of(folder) for folder in complete(output)]
    try:
        kept = kept_steps(steps, config, losses(output / "validation.jsonl"))
    except OSError as error:
        print(f"warning: all checkpoints stay: {output / 'validation.jsonl'}: {error}", file=sys.stderr, flush=True)
        return
    for folder in begun_folders(output):
        if folder.is_symlink() or (step_of(folder) in kept and (folder / COMPLETE).is_file()):
            continue
        try:
            erase(folder)
        except OSError as error:
            print(f"warning: the old checkpoint {folder} stays: {error}", file=sys.stderr, flush=True)


def kept_steps(steps: list[int], config: CheckpointConfig, losses: dict[int, float]) -> set[int]:
    """Returns those of the steps whose checkpoints stay.

    Args:
        steps: Steps of the complete checkpoints, in ascending order.
        config: The settings.
        losses: Validation loss by step.
    """
    if config.keep == "best":
        judged = [step for step in steps if step in losses]
        kept = {steps[-1], *sorted(judged, key=lambda step: losses[step])[:1]}
    else:
        kept = set(steps[-config.keep :])
    return kept | {step for step in steps if config.keep_every and step % config.keep_every == 0}


def losses(path: Path) -> dict[int, float]:
    """Reads the losses of ``validation.jsonl`` by step. A loss that was not finite is infinite."""
    if not path.exists():
        return {}
    lines = filter(None, map(entry, path.read_bytes().splitlines()))
    return {line["step"]: math.inf if line.get("loss") is None else line["loss"] for line in lines}
