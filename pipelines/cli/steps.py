"""Names a checkpoint of a run on the command line: ``--checkpoint RUN --step 2000``, or its folder."""

import argparse
import re
from pathlib import Path

from vtok.config import require

NAME = re.compile(r"step_(\d{8,})")


def folder_of(output: Path, step: int) -> Path:
    """Returns the folder of a run's checkpoint."""
    return output / "checkpoints" / f"step_{step:08d}"


def run_of(checkpoint: Path) -> Path:
    """Returns the folder of the run that a checkpoint's folder belongs to, or ``checkpoint`` if that is a run."""
    inside = checkpoint.absolute().parent
    return inside.parent if inside.name == "checkpoints" and (inside.parent / "config.yaml").exists() else checkpoint


def add_step(parser: argparse.ArgumentParser) -> None:
    """Adds ``--step`` to a command that has ``--checkpoint``."""
    parser.add_argument("--step", type=int, help="step of the --checkpoint (default: the newest); or give its folder")


def with_step(a: argparse.Namespace) -> argparse.Namespace:
    """Returns the arguments, in which ``checkpoint`` is the folder of the ``step``, if that is given.

    Raises:
        ConfigError: ``--step`` is given without the folder of a run.
    """
    if a.step is not None:
        require(a.checkpoint is not None, "--step goes with --checkpoint")
        require(a.step >= 0, f"--step must not be negative, and is {a.step}")
        require((a.checkpoint / "config.yaml").is_file() and NAME.fullmatch(a.checkpoint.name) is None,
                f"--step goes with a run's folder, which --checkpoint {a.checkpoint} is not")  # fmt: skip
        a.checkpoint = folder_of(a.checkpoint, a.step)
    return a
