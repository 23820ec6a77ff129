"""What judging the small models needs: a loader of an untrained run, and lines as plain data."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pipelines.config import RunConfig, TrainConfig
from pipelines.evaluation.tables import Line
from pipelines.inference.load import Run
from vtok.framework import VTokFramework

VIDEOS_AT_ONCE = 20  # one video is so small that calling the transformer takes longer than running it


def untrained(framework: VTokFramework) -> Callable[[], Run]:
    """Returns a loader of a run at step 0, with this framework."""
    return lambda: (RunConfig(TrainConfig(max_steps=1), model=framework.config), framework, 0)


def plain(lines: list[Line]) -> list[dict[str, Any]]:
    """Returns the lines as dictionaries."""
    return [asdict(line) for line in lines]
