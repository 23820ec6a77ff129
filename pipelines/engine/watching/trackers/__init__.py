"""The trackers that ``track`` names.

To add one, write a subclass of :class:`pipelines.engine.watching.trackers.base.Tracker` in a file here, and enter it in
``TRACKERS`` and in ``pipelines.config.Trackers``.
"""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipelines.engine.watching.trackers.base import Tracker
from pipelines.engine.watching.trackers.hosted import MLflow, SwanLab, Trackio, WandB
from pipelines.engine.watching.trackers.tensorboard import TensorBoard
from vtok.config import require

__all__ = ["Tracker", "flat", "open_trackers", "require_installed"]

TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "swanlab": SwanLab, "trackio": Trackio,
}  # fmt: skip


def require_installed(names: Iterable[str]) -> None:
    """Raises ConfigError if a tracker is not installed here."""
    for name in names:
        require(find_spec(name) is not None, f"track: {name} is not installed: pip install {name}, or take it out")


def open_trackers(names: Iterable[str], output: Path, step: int, settings: Mapping[str, Any]) -> list[Tracker]:
    """Starts the trackers of a run. Arguments and errors are those of :class:`Tracker`."""
    return [TRACKERS[name](output, step, settings) for name in names]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested mappings by dotted names. What is no number and no text becomes text."""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value if isinstance(value, (int, float, str)) else str(value)
    return values
