"""The model of a trained VTok, which a new run takes if it is started from it without ``--config``."""

import json
from pathlib import Path
from typing import Any

from pipelines.cli.config_files import read_yaml
from pipelines.cli.steps import run_of
from pipelines.config import DataConfig

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
        ConfigError: ``place`` is no folder and not on the hub.
    """
    folder = Path(place).expanduser()
    if not folder.is_dir():
        return named_model(place)
    if (run_of(folder) / "config.yaml").is_file():
        inside = run_of(folder)
        settings = read_yaml(inside / "config.yaml")
        model, seconds = settings["model"], settings["data"]["seconds"]
    elif (folder / EXPORTED).is_file():
        (model, seconds), inside = exported_model(folder / EXPORTED), folder
    else:
        return None
    for name in PARTS:
        part = model.get(name) or {}
        if part.get("weights") and (inside / part["weights"]).exists():
            part["weights"] = str((inside / part["weights"]).resolve())
    return model, seconds


def named_model(name: str) -> tuple[dict[str, Any], float] | None:
    """Returns the settings of an export that has a name: a shipped model or a hub id."""
    from vtok.weights import Location  # only now: this imports the libraries, which takes seconds

    path = Location("trained VTok", "init.weights", name).find(EXPORTED)
    if path is None:
        return None
    model, seconds = exported_model(path)
    if model["mllm"]["weights"] == ".":  # an export with the whole language model
        model["mllm"]["weights"] = name
    return model, seconds


def exported_model(path: Path) -> tuple[dict[str, Any], float]:
    """Reads the settings of an export, and the seconds of its training's samples."""
    model = json.loads(path.read_text())
    return model, model.pop("seconds", DataConfig.seconds)
