"""What the settings of all studies, and of the small models, share."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from pipelines.cli.config_files import read_yaml
from pipelines.cli.errors import one_line
from vtok.config import ConfigError, require

Settings = TypeVar("Settings")


@dataclass
class Fitting:
    """The training of a small model: AdamW, linear warm-up, then a cosine down to zero.

    Args:
        steps: Optimiser steps.
        batch_size: Samples per step.
        lr: Highest learning rate.
        warmup: Steps of the warm-up.
    """

    steps: int = 1000
    batch_size: int = 64
    lr: float = 1e-3
    warmup: int = 100


@dataclass
class ArmConfig:
    """A tokenisation strategy to train.

    Args:
        tokeniser: Changes to the study's ``tokeniser``.
        g_phi_of_grid: If set, the hidden layer of ``g_phi`` is widened until it has as many parameters as with this
            ``residual_grid``.
        table: Tables of the report that show the arm: ``main``, ``spatial``, ``temporal``, ``residual``, or
            ``training_free`` (the arm is also asked with training-free tokens).
    """

    tokeniser: dict[str, Any] = field(default_factory=dict)
    g_phi_of_grid: int | None = None
    table: list[str] = field(default_factory=lambda: ["main"])


def load_profile(kind: type[Settings], path: Path, profile: str) -> Settings:
    """Reads a profile of a YAML. Its settings override those that the file gives for all profiles.

    Args:
        kind: The dataclass that the settings fill.
        path: The YAML.
        profile: Name of the profile.

    Raises:
        ConfigError: The file, the profile or a setting does not exist.
    """
    tree = read_yaml(path)
    profiles = tree.pop("profiles", {})
    require(profile in profiles, f"{path} has no profile {profile!r}: choose one of {', '.join(profiles)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "study")
    try:
        values = parser.instantiate(parser.parse_object({"study": merged(tree, profiles[profile] or {})}))
    except (ArgumentError, ValueError) as error:
        raise ConfigError(f"{path}: {one_line(error)}") from error
    return values["study"]


def merged(base: dict, changes: dict) -> dict:
    """Returns ``base`` with ``changes``. Mappings are merged key by key; a change to ``None`` removes the key."""
    result = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result
