"""Logs with one JSON object per line, each with its ``step``."""

import json
import os
from pathlib import Path


def truncate_log(path: Path, step: int) -> None:
    """Keeps the lines up to ``step``. A resumed run repeats the steps after its last checkpoint."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines(keepends=True) if is_kept(line, step)]
    part = path.with_suffix(".part")
    part.write_text("".join(kept))
    os.replace(part, path)


def is_kept(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except ValueError:  # a killed process was writing this line
        return False
