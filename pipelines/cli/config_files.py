"""The files that say what a run is: presets, its own ``config.yaml``, DeepSpeed's JSON."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from pipelines.cli.errors import one_line
from pipelines.cli.yaml_slips import require_no_slips
from pipelines.config import RunConfig
from vtok.config import ConfigError, require

PRESETS = Path(__file__).parents[1] / "configs"


def read_yaml(path: Path, kind: type | None = None) -> dict:
    """A YAML mapping, loaded safely.

    Args:
        kind: the dataclass that it fills, if any (see :mod:`pipelines.cli.yaml_slips`).

    Raises:
        ConfigError: no such file, not a mapping, or a slip in it.
    """
    try:
        pipe = path.exists() and not path.is_file() and not path.is_dir()
        require(not pipe, f"the configuration {path} is no file: write it to one, since it is read more than once")
        text = path.read_text()
        tree = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {getattr(error, 'strerror', error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {one_line(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply: write sections such as 'train:'") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} should hold sections such as 'train:', found {type(tree).__name__}")
    try:
        require_no_slips(path, text, kind)
    except RecursionError as error:  # an alias within its own anchor
        raise ConfigError(f"{path} holds a part that contains itself: remove the alias") from error
    return tree


def read_ds_config(path: Path) -> dict:
    """DeepSpeed's JSON as it stands in the file.

    Raises:
        ConfigError: no such file, not JSON, or a key twice in it.
    """
    try:
        config = json.loads(Path(path).read_text(), object_pairs_hook=distinct)
        require(isinstance(config, dict), f"--ds_config {path} should hold one object {{...}}")
        return config
    except OSError as error:
        raise ConfigError(f"cannot read --ds_config {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"--ds_config {path} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"--ds_config {path} is nested too deeply: write one object {{...}} of settings") from error


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON.

    Raises:
        ValueError: a key is given twice.
    """
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is given twice: remove one")
    return dict(pairs)


def save_config(config: RunConfig, path: Path) -> None:
    """Writes a configuration.

    Raises:
        ConfigError: The disk is full, or something else forbids it. The file that is there stays.
    """
    from data_tools.shards import atomic_write  # only now: this imports numpy

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(as_yaml(config).encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}: make room or change --output") from error


def as_yaml(config: Any) -> str:
    """A configuration dataclass as the YAML file that gives it."""
    return yaml.safe_dump(plain(asdict(config)), sort_keys=False)


def plain(value: Any) -> Any:
    """Tuples as lists, so that safe YAML can hold them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
