"""The model of a trained VTok, which a new run takes if it is started from it without ``--config``."""

import json
from pathlib import Path
from typing import Any

from pipelines.cli.config_files import read_yaml
from pipelines.cli.errors import one_line
from pipelines.cli.steps import run_of
from pipelines.config import DataConfig
from vtok.config import ConfigError, require

PARTS = ("tokeniser", "mllm", "decoder")  # those that name weights
EXPORTED = "vtok_config.json"


def model_of(place: str) -> dict[str, Any] | None:
    """Returns the section ``model`` of a trained VTok (see :func:`trained_model`); ``None`` if it is none."""
    found = trained_model(place)
    return found and found[0]


def trained_model(place: str) -> tuple[dict[str, Any], float] | None:
    """Returns the settings of the model in a run's folder, one of its checkpoints, an export, or a hub's repository.

    Weights inside a folder are named so that they are found from anywhere.

    Args:
        place: The folder, a shipped model or a hub id.

    Returns:
        The section ``model``, and the seconds of the samples that it was trained on; ``None`` if ``place`` holds no
        model.

    Raises:
        ConfigError: ``place`` is no folder and not on the hub, or its settings are no VTok's.
    """
    folder = Path(place).expanduser()
    if not folder.is_dir():
        return named_model(place)
    if (run_of(folder) / "config.yaml").is_file():
        inside = run_of(folder)
        settings = read_yaml(inside / "config.yaml")
        model, data = (section_of(settings, name, inside / "config.yaml") for name in ("model", "data"))
        seconds = data.get("seconds", DataConfig.seconds)
    elif (folder / EXPORTED).is_file():
        (model, seconds), inside = exported_model(folder / EXPORTED), folder
    else:
        return None
    for name in PARTS:
        part = model.get(name)  # None in a run that leaves the defaults; what else is wrong in it, its reader says
        weights = part.get("weights") if isinstance(part, dict) else None
        if isinstance(weights, str) and weights and (inside / weights).exists():
            part["weights"] = str((inside / weights).resolve())
    return model, seconds


def section_of(settings: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """Returns a section of a VTok's settings; raises ConfigError if the file ``path`` has no such section."""
    section = settings.get(name)
    if not isinstance(section, dict):
        raise ConfigError(f"{path} has no section {name}: it is not of a trained VTok, so name another folder")
    return section


def named_model(name: str) -> tuple[dict[str, Any], float] | None:
    """Returns the settings of an export that has a name: a shipped model or a hub id."""
    from vtok.weights import Location  # only now: this imports the libraries, which takes seconds

    path = Location("trained VTok", "init.weights", name).find(EXPORTED)
    if path is None:
        return None
    model, seconds = exported_model(path)
    mllm = section_of(model, "mllm", path)
    if mllm.get("weights") == ".":  # an export with the whole language model
        mllm["weights"] = name
    return model, seconds


def exported_model(path: Path) -> tuple[dict[str, Any], float]:
    """Reads the settings of an export, and the seconds of its training's samples.

    Raises:
        ConfigError: The file is damaged or not of an export.
    """
    try:
        model = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {one_line(error)}: export the model again") from error
    require(isinstance(model, dict), f"{path} should hold one object {{...}}: export the model again")
    for name in PARTS:
        section_of(model, name, path)
    return model, model.pop("seconds", DataConfig.seconds)
