"""Writes a folder of a model of ours: its sizes, ``config.json``, and its weights, one safetensors file."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

CONFIG = "config.json"


def save_model(model: nn.Module, config: object, kind: str, folder: str | Path, weights: str, **more: object) -> None:
    """Writes both files. The folder is created if it does not exist.

    Args:
        model: The model.
        config: Its sizes, a dataclass.
        kind: Name of the model's class, by which a reader knows it.
        folder: The folder.
        weights: Name of the file of the weights.
        more: Entries of ``config.json`` that are no sizes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / weights)
    write_config(config, kind, folder, **more)


def write_config(config: object, kind: str, folder: Path, **more: object) -> None:
    """Writes ``config.json`` alone. The arguments are those of :func:`save_model`."""
    described = {"_class_name": kind, **more, **asdict(config)}  # type: ignore[call-overload]  # a dataclass
    (folder / CONFIG).write_text(json.dumps(described, indent=2))


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Writes a model's weights, under their names in the model, as one ``.safetensors``."""
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
