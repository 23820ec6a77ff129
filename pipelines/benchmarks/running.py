"""A run as a user starts it: how long until the first step, and what share of the later ones is waiting for data."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from pipelines.benchmarks.paired import ratio

ROOT = Path(__file__).parents[2]


def importing(module: str, repeats: int = 5) -> float:
    """CPU time of importing a module of ours over that of importing torch and transformers."""
    libraries = "import torch, transformers"
    return ratio(lambda: import_seconds(f"import {module}"), lambda: import_seconds(libraries), repeats)


def import_seconds(statement: str) -> float:
    """CPU seconds of a Python of its own, from its start to its end."""
    before = os.times()
    subprocess.run([sys.executable, "-c", statement], cwd=ROOT, check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def training(folder: Path, clips: int = 16, steps: int = 20) -> dict[str, float]:
    """One rank, the tiny preset and one data worker, on clips of moving shapes.

    first_step: seconds from the command to its end. waited: median share of the steps from the third on.
    """
    render_clips(folder / "clips", clips, seed=0)
    build_shards(folder / "clips", folder / "shards", samples_per_shard=8, progress=False)
    log = folder / "run" / "log.jsonl"
    command = [
        sys.executable, "pipelines/train.py", "--config", "pipelines/configs/tiny.yaml",
        "--ds_config", "deepspeed_configs/zero3.json", "--data.shards", folder / "shards", "--output", log.parent,
        "--data.workers", 1, "--train.max_steps", steps, "--validation.every", 0,
    ]  # fmt: skip
    started = time.perf_counter()
    run = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL)
    while run.poll() is None and not (log.is_file() and log.read_text()):
        time.sleep(0.05)
    first_step = time.perf_counter() - started
    if run.wait():
        raise RuntimeError(f"training ended with exit code {run.returncode}")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return dict(first_step=first_step, waited=median(line["data_wait"] for line in lines[2:]))
