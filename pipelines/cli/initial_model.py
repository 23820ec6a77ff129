"""The model of a trained VTok, which a new run takes if it is started from it without ``--config``."""

import json
from pathlib import Path
from typing import Any

from pipelines.cli.config_files import read_yaml
from pipelines.cli.steps import run_of

PARTS = ("tokeniser", "mllm", "decoder")  # those that name weights


def model_of(place: Path) -> dict[str, Any] | None:
    """Returns the settings of the model in a run's folder, one of its checkpoints or an export.

    Weights inside that folder are named so that they are found from anywhere.

    Args:
        place: The folder.

    Returns:
        The section ``model``; ``None`` if ``place`` is no such folder.
    """
    if (run_of(place) / "config.yaml").is_file():
        folder = run_of(place)
        model = read_yaml(folder / "config.yaml")["model"]
    elif (place / "vtok_config.json").is_file():
        model, folder = json.loads((place / "vtok_config.json").read_text()), place
        model.pop("seconds", None)  # a fact about the training
    else:
        return None
    for name in PARTS:
        part = model.get(name) or {}
        if part.get("weights") and (folder / part["weights"]).exists():
            part["weights"] = str((folder / part["weights"]).resolve())
    return model
