"""A stage makes a folder. What it made, and from what, is written last: a stage that is done is not done again.

Several processes may work on one study: a stage is made by one of them, and the others wait for it.
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
from pipelines.accuracy import wilson
from vtok.config import require

BEGUN, DONE = "key.txt", "done.json"


@dataclass(frozen=True)
class Done:
    """A stage that is done.

    Attributes:
        folder: what it made.
        key: of its settings and of all that it rests on.
        figures: what it measured.
    """

    folder: Path
    key: str
    figures: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether its gate, if it has one, did."""
        return self.figures.get("gate", {}).get("passed", True)


def stage(folder: Path, settings: Any, rests_on: list[Done], make: Callable[[Path], dict[str, Any]]) -> Done:
    """Do a stage, unless it is done.

    Args:
        settings: dataclasses or plain data; with what it rests on, all that its outcome depends on.
        make: fills the folder, or goes on filling it, and returns figures.

    Raises:
        ConfigError: the folder was made with other settings.
    """
    key = key_of(settings, *[done.key for done in rests_on])
    begun, done = folder / BEGUN, folder / DONE
    fits = not begun.exists() or begun.read_text() == key
    require(fits, f"{folder} was made with other settings: choose another --output or delete it")
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "making"):
            if not done.exists():  # nobody made it meanwhile
                begun.write_text(key)
                print(f"{folder.name} ...", flush=True)
                start = time.time()
                figures = make(folder) | {"seconds": round(time.time() - start, 1)}
                with atomic_write(done) as file:
                    file.write(json.dumps(figures, indent=1).encode())
                print(f"{folder.name}: {figures['seconds']:.0f} s {summary(figures)}", flush=True)
    return Done(folder, key, json.loads(done.read_text()))


def slug(name: str) -> str:
    """A name as that of a folder: without spaces and commas."""
    return re.sub(r"[^\w.-]+", "-", name)


def summary(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in figures.items() if isinstance(value, float))


def key_of(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=asdict).encode()).hexdigest()[:16]


def gate(name: str, right: int, asked: int, above: float) -> dict[str, Any]:
    """Passed where the whole 95 % Wilson interval lies above a share."""
    interval = wilson(right, asked)
    return {"gate": dict(name=name, right=right, asked=asked, **asdict(interval), above=above,
                         passed=interval.low > above)}  # fmt: skip
