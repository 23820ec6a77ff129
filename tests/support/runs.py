"""Short training runs of tiny models: their options, their logs and their processes."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import psutil
from safetensors.torch import save_file

from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from pipelines import train
from pipelines.cli.config_files import save_config
from pipelines.cli.steps import folder_of
from pipelines.config import RunConfig
from pipelines.engine.saving.checkpoint import fresh_state, statistics
from pipelines.engine.saving.choosing import seal
from pipelines.engine.saving.folders import STATE, STATISTICS
from pipelines.engine.saving.slices import slice_file, write_slices
from pipelines.engine.saving.writing import mark_complete
from pipelines.engine.watching.metrics import MEASURED
from support.commands import called
from vtok.framework import VTokFramework

CONFIG, DS_CONFIG = "pipelines/configs/tiny.yaml", "deepspeed_configs/zero3.json"


def make_shards(folder: Path, clips: int = 22) -> Path:
    """Shards of five clips each, the clips beside them."""
    render_clips(folder / "clips", clips, seed=5)
    build_shards(folder / "clips", folder / "shards", samples_per_shard=5, progress=False)
    return folder / "shards"


def started(settings, shards: Path, output: Path, *more, start=called):
    """Trains the tiny preset in this process, or with ``Ranks.run`` as ``start``."""
    given = ("--config", CONFIG, "--ds_config", DS_CONFIG, "--data.shards", shards, "--output", output)
    return start(train.main, *given, *settings, *more)


def options(shards: Path, output: Path, steps: int, every: int) -> tuple[str, ...]:
    """Of a run that resumes itself, on 22 clips in batches of four: it spans epochs."""
    named = {
        "--data.shards": shards, "--data.seconds": 1, "--train.global_batch_size": 4, "--train.max_steps": steps,
        "--checkpoint.every": every, "--resume": "auto", "--output": output,
    }  # fmt: skip
    return tuple(str(word) for pair in named.items() for word in pair)


def write_run(folder: Path, config: RunConfig, framework: VTokFramework, step: int = 7) -> Path:
    """What a finished run of one rank leaves for inference: its configuration and a checkpoint of these weights."""
    save_config(config, folder / "config.yaml")
    checkpoint = folder_of(folder, step)
    checkpoint.mkdir(parents=True)
    trained = {name: p.detach() for name, p in framework.named_parameters() if p.requires_grad}
    weights = {f"weights/{name}": p.flatten().float() for name, p in trained.items()}
    write_slices(slice_file(checkpoint, 0), weights, {})
    save_file(statistics(framework), checkpoint / STATISTICS)
    state = replace(fresh_state(config.seed, "", 1, framework, {}), step=step)
    (checkpoint / STATE).write_text(json.dumps(asdict(state)))
    mark_complete(checkpoint, {"files": {path.name: seal(path) for path in checkpoint.iterdir()}})
    return folder


def log_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def without_rates(log: list[dict]) -> list[dict]:
    """The columns that have to be equal in equal runs."""
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in log]


def copied_to_resume(run: Path, copy: Path, of: str = "") -> Path:
    """Copies a finished run of four steps so that it goes on from the checkpoint before its last.

    Its last checkpoint is incomplete, as if the run had died while writing it, and its log lacks the last line.

    Args:
        run: The run.
        copy: The folder to make.
        of: The subfolder whose checkpoint is incomplete.
    """
    shutil.copytree(run, copy)
    (copy / of / "checkpoints/step_00000004/COMPLETE").unlink()
    lines = (copy / "log.jsonl").read_text().splitlines(keepends=True)
    (copy / "log.jsonl").write_text("".join(lines[:-1]))
    return copy


def assert_same_run(resumed: Path, run: Path, *weights: str) -> None:
    """Asserts that a resumed run has the log of the whole run to the last digit, and these files to the last bit."""
    assert without_rates(log_of(resumed)) == without_rates(log_of(run))
    for name in weights:
        assert (resumed / name).read_bytes() == (run / name).read_bytes()


def steps_done(output: Path) -> int:
    log = output / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def processes(output: Path) -> list[psutil.Process]:
    """All that live and were given this output folder: launchers, ranks and, by fork, their loader processes."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(output) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            pass
    return found


def ranks(output: Path) -> dict[int, psutil.Process]:
    """Rank → process of a run."""
    found = {}
    for process in processes(output):
        try:
            environment, parent = process.environ(), process.parent()
            is_loader = parent is not None and str(output) in parent.cmdline() and "RANK" in parent.environ()
        except psutil.NoSuchProcess:
            continue
        if "RANK" in environment and not is_loader:
            found[int(environment["RANK"])] = process
    return found
