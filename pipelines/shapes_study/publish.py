"""Copies what is worth keeping of a study: its results, the report and its pictures.

Frozen models, features and checkpoints stay in the study's output. The same command can make them again.
"""

import shutil
from pathlib import Path

from pipelines.shapes_study.report import CURVES, REPORT, VIDEOS
from pipelines.shapes_study.results import RESULTS


def publish(output: Path, folder: Path) -> None:
    """Copies results, report and pictures from a study's output to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RESULTS, REPORT, CURVES, VIDEOS):
        if (output / name).exists():
            shutil.copyfile(output / name, folder / name)
