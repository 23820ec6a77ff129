"""VBench's environment: where its Python is, and the prompts of its own package."""

import json
from pathlib import Path
from typing import NamedTuple

from vtok.config import ConfigError, require

PROMPTS = "lib/python3.*/site-packages/vbench/VBench_full_info.json"


class Environment(NamedTuple):
    """An environment that ``environment.sh`` made.

    Attributes:
        python: Its Python.
        full_info: VBench's table of prompts and dimensions.
    """

    python: Path
    full_info: Path


def environment_of(folder: Path) -> Environment:
    """Finds VBench in an environment.

    Raises:
        ConfigError: It is not there.
    """
    python, found = folder / "bin" / "python", sorted(folder.glob(PROMPTS))
    require(
        python.exists() and len(found) == 1,
        f"{folder} is no environment with VBench: make one by pipelines/evaluation/vbench/environment.sh",
    )
    return Environment(python, found[0])


def prompts_of(full_info: Path, dimensions: list[str]) -> list[str]:
    """Returns the prompts by which some dimensions are judged, each once, in VBench's order.

    Raises:
        ConfigError: The table is not of VBench's form.
    """
    try:
        rows = json.loads(full_info.read_text())
        return list(dict.fromkeys(row["prompt_en"] for row in rows if set(row["dimension"]) & set(dimensions)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{full_info} is not VBench's table of prompts: {error}") from error
