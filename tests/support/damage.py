"""Damages to a folder of a model. Each is a function of the folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Damage = Callable[[Path], None]
GONE = object()  # in the place of a value: the field is left out


def fields(file: str, **changes: Any) -> Damage:
    """Changes fields of a JSON file. ``text_config__hidden_size`` is the field ``hidden_size`` of ``text_config``."""

    def damage(folder: Path) -> None:
        stored = json.loads((folder / file).read_text())
        for name, value in changes.items():
            *sections, field = name.split("__")
            place = stored
            for section in sections:
                place = place[section]
            place.pop(field, None)
            if value is not GONE:
                place[field] = value
        (folder / file).write_text(json.dumps(stored))

    return damage


def content(file: str, text: str) -> Damage:
    """Replaces a file by a text."""
    return lambda folder: (folder / file).write_text(text) and None


def without(file: str) -> Damage:
    """Removes a file."""
    return lambda folder: (folder / file).unlink()


def tensors(file: str, *names: str) -> Damage:
    """Adds small tensors to a safetensors file."""

    def damage(folder: Path) -> None:
        save_file(load_file(folder / file) | {name: torch.zeros(2) for name in names}, folder / file)

    return damage
