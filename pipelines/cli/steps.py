"""Names a checkpoint of a run on the command line: ``--checkpoint RUN --step 2000``, or its folder."""

import argparse
import re
from pathlib import Path

from vtok.config import require

NAME = re.compile(r"step_(\d{8,})")
STAGE = re.compile(r"stage_\d+_\w+")


def folder_of(output: Path, step: int) -> Path:
    """Returns the folder of a run's checkpoint."""
    return output / "checkpoints" / f"step_{step:08d}"


def stages_in(output: Path) -> list[Path]:
    """Lists the folders of a run's stages in their order; none if it has no stages."""
    found = [path for path in output.glob("stage_*_*") if STAGE.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.split("_")[1]))


def run_of(checkpoint: Path) -> Path:
    """Returns the folder of the run that a checkpoint's folder belongs to, or ``checkpoint`` if that is a run.

    Of a run in stages it is the folder of the last stage that has a complete checkpoint.
    """
    reached = [stage for stage in stages_in(checkpoint) if any(stage.glob("checkpoints/step_*/COMPLETE"))]
    if reached:
        return reached[-1]
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
        a.checkpoint = folder_of(run_of(a.checkpoint), a.step)
    return a
