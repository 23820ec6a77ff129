"""Says where a run goes on, and which of its settings differ from those that the checkpoint was trained with."""

import json
from pathlib import Path
from typing import Any

import yaml

from pipelines.cli.config_files import as_yaml, read_yaml
from pipelines.engine.loop import Settings
from pipelines.engine.saving.folders import CONFIG

MOST = 10  # settings that are named
LONGEST = 60  # characters of a value
LENGTHS = ("train.max_steps", "train.epochs")


def resumed_lines(config: Settings, checkpoint: Path, step: int) -> list[str]:
    """Says where a run goes on: a line, and one for each setting that differs from the checkpoint's ``config.yaml``.

    Args:
        config: The run's configuration.
        checkpoint: The checkpoint that it goes on from.
        step: Its step.

    Raises:
        ConfigError: The checkpoint's configuration cannot be read.
    """
    stored = checkpoint / CONFIG
    changed = changes(read_yaml(stored), yaml.safe_load(as_yaml(config))) if stored.is_file() else []
    schedule = config.train.schedule
    lines = [
        f"  {name}: {shown(before)} -> {shown(now)}"
        + (f" (the {schedule} schedule ends there)" if name in LENGTHS and schedule != "constant" else "")
        for name, before, now in changed
    ]
    more = [f"  and {len(lines) - MOST} more"] if len(lines) > MOST else []
    differ = ", with settings that differ from those it was trained with:" if lines else ""
    return [f"goes on from step {step} of {checkpoint}{differ}", *lines[:MOST], *more]


def changes(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Lists the settings whose values differ: the name, the earlier value and the present one.

    A setting that only one of two configurations has is one that the other's version of the program did not know.
    """
    found = []
    for key in sorted(now.keys() & before.keys()):
        if isinstance(before[key], dict) and isinstance(now[key], dict):
            found += changes(before[key], now[key], f"{prefix}{key}.")
        elif before[key] != now[key]:
            found.append((f"{prefix}{key}", before[key], now[key]))
    return found


def shown(value: Any) -> str:
    """Returns a value in one short line, as YAML would have it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
