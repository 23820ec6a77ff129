"""A run in stages. Each stage is a run of its own, in a subfolder, and starts from the weights of the one before.

    OUTPUT/config.yaml          the whole, with its stages
           stage_1_align/       a run's folder, with its own configuration, logs and checkpoints
           stage_2_all/

In the YAML a stage has a name and the settings in which it differs:

    stages:
      - name: align
        train: {max_steps: 2000, parts: {projector: 1.0e-3, visual_head: 1.0e-3}}
      - name: all
        train: {max_steps: 50000}
"""

from dataclasses import asdict, fields
from typing import Any, NamedTuple

from jsonargparse import ArgumentError, ArgumentParser

from pipelines.cli.config_files import plain
from pipelines.cli.errors import one_line
from pipelines.cli.parsing import FREE, NO_EFFECT, key_paths, unknown_key, yaml_paths
from pipelines.config import InitConfig, RunConfig
from vtok.config import ConfigError, require

# What a stage may change: nothing that would change the shape of a parameter.
SECTIONS = ("data", "train", "checkpoint", "validation", "model.loss")
SIZES = ("fps", "height", "width", "loss_height", "loss_width", "loss_latent_frames")
MAY_CHANGE = {*SECTIONS, *(f"model.decoder.{name}" for name in SIZES)}
WHOLE = ("train.parts", "data.mixture")  # a stage's value replaces that of the run, key by key it would not
ALTERNATIVES = (("train", ("max_steps", "epochs")), ("data", ("shards", "mixture", "root")))


class Stage(NamedTuple):
    """A stage.

    Attributes:
        folder: Name of its folder.
        config: Its configuration, that of a run without stages. The first stage has the run's ``init``.
    """

    folder: str
    config: RunConfig


def stages_of(config: RunConfig) -> list[Stage]:
    """Returns a run's stages. A stage's seed is the run's plus the number of stages before it.

    Raises:
        ConfigError: A stage's setting is unknown, impossible, or one that a stage cannot change.
    """
    require(config.demo is None, "stages go with given data: leave demo out")
    base = plain(asdict(config)) | {"stages": None}
    found = []
    for number, given in enumerate(config.stages or []):
        name = given.get("name", number + 1)
        changes = {key: value for key, value in given.items() if key != "name"}
        require_known(name, changes)
        tree = merged(base, with_alternatives(changes)) | {"seed": config.seed + number}
        require(
            tree["train"]["parts"] is None or "lr" not in changes.get("train", {}),
            f"stages, {name}: train.lr {NO_EFFECT}",
        )
        if number:
            tree["init"] = asdict(InitConfig())
        found.append(Stage(f"stage_{number + 1}_{name}", built(name, tree)))
    return found


def require_known(name: str, changes: dict[str, Any]) -> None:
    """Raises ConfigError if a stage has a key that is unknown, or that a stage cannot change."""
    known = key_paths(RunConfig)
    for key in yaml_paths(changes):
        where = f"stages, {name}: "
        require(key in known or key.startswith(FREE), where + unknown_key(key, known))
        parents = {key.rsplit(".", cut)[0] for cut in range(key.count(".") + 1)}
        above = any(allowed.startswith(f"{key}.") for allowed in MAY_CHANGE)
        require(
            above or bool(parents & MAY_CHANGE),
            f"{where}a stage cannot change {key}: it may change {', '.join(sorted(MAY_CHANGE))}",
        )


def with_alternatives(changes: dict[str, Any]) -> dict[str, Any]:
    """Returns a stage's settings, in which one of several alternatives turns off the others."""
    result = dict(changes)
    for section, names in ALTERNATIVES:
        own = result.get(section) or {}
        if any(name in own for name in names):
            result[section] = dict.fromkeys(names) | own
    return result


def merged(base: dict[str, Any], changes: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns ``base`` with the values of ``changes``, section by section."""
    result = dict(base)
    for key, value in changes.items():
        inner = isinstance(value, dict) and isinstance(base.get(key), dict) and f"{prefix}{key}" not in WHOLE
        result[key] = merged(base[key], value, f"{prefix}{key}.") if inner else value
    return result


def built(name: str, tree: dict[str, Any]) -> RunConfig:
    """Returns the configuration that a tree of settings makes."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RunConfig)
    try:
        values = parser.instantiate(parser.parse_object(tree))
    except (ArgumentError, ValueError, TypeError) as error:
        raise ConfigError(f"stages, {name}: {one_line(error)}") from error
    return RunConfig(**{f.name: values[f.name] for f in fields(RunConfig)})
