"""Stages: each fills a folder. Its figures and settings are written last, and a finished stage is not repeated.

Several processes may work on one study. One of them makes a stage, and the others wait for it.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_tools.locks import locked
from data_tools.shards import atomic_write
from pipelines.evaluation.accuracy import wilson
from vtok.config import require

BEGUN, DONE = "key.txt", "done.json"


@dataclass(frozen=True)
class Done:
    """A finished stage.

    Attributes:
        folder: Its folder.
        key: Hash of its settings and of the stages that it depends on.
        figures: Its measurements.
    """

    folder: Path
    key: str
    figures: dict[str, Any]


def stage(folder: Path, settings: Any, rests_on: list[Done], make: Callable[[Path], dict[str, Any]]) -> Done:
    """Makes a stage, unless it is done.

    Args:
        folder: Its folder.
        settings: Dataclasses or plain data. The outcome may depend on them and on ``rests_on`` only.
        rests_on: The stages that it depends on.
        make: Fills the folder, or continues to fill it, and returns the figures.

    Raises:
        ConfigError: The folder was made with other settings.
    """
    key = key_of(settings, *[done.key for done in rests_on])
    begun, done = folder / BEGUN, folder / DONE
    fits = not begun.exists() or begun.read_text() == key
    require(fits, f"{folder} was made with other settings: choose another --output or delete it")
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "making"):
            if not done.exists():  # no other process made it in the meantime
                begun.write_text(key)
                print(f"{folder.name} ...", flush=True)
                start = time.time()
                figures = make(folder) | {"seconds": round(time.time() - start, 1)}
                with atomic_write(done) as file:
                    file.write(json.dumps(figures, indent=1).encode())
                print(f"{folder.name}: {figures['seconds']:.0f} s {summary(figures)}", flush=True)
    return Done(folder, key, json.loads(done.read_text()))


def slug(name: str) -> str:
    """Returns a name without spaces and commas, for a folder."""
    return re.sub(r"[^\w.-]+", "-", name)


def summary(figures: dict[str, Any]) -> str:
    """Returns the figures that are numbers, as text."""
    return ", ".join(f"{name} {value:.3g}" for name, value in figures.items() if isinstance(value, float))


def key_of(*parts: Any) -> str:
    """Returns a hash of dataclasses or plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=asdict).encode()).hexdigest()[:16]


def gate(name: str, right: int, asked: int, above: float) -> dict[str, Any]:
    """Returns a gate. It passes if the whole 95 % Wilson interval lies above a share.

    Args:
        name: What the gate asks.
        right: Right answers.
        asked: Questions.
        above: The share.
    """
    interval = wilson(right, asked)
    return {"gate": dict(name=name, right=right, asked=asked, **asdict(interval), above=above,
                         passed=interval.low > above)}  # fmt: skip
