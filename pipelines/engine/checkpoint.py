"""Checkpoints: what was trained, in DeepSpeed's per-rank files, with a marker that is written last.

    OUTPUT/checkpoints/step_00000050/    DeepSpeed's files (trainable parameters, optimiser; frozen weights never)
                                         state.json (step, samples consumed, seed, data, shapes)
                                         COMPLETE

DeepSpeed's loaders unpickle: a run's own checkpoints are trusted input, nothing else is.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from safetensors.torch import load_file, save_file

from pipelines.engine import distributed
from pipelines.engine.setup import Engine
from vtok.config import ConfigError
from vtok.framework import VTokFramework

COMPLETE = "COMPLETE"
STATISTICS = "feature_scale.safetensors"


@dataclass
class RunState:
    """Where a run stands. ``consumed_samples``, ``seed`` and ``manifest_hash`` are the whole state of the data.

    ``updates`` are the steps whose update was applied: the learning rate follows them.
    """

    step: int
    consumed_samples: int
    seed: int
    manifest_hash: str
    ranks: int
    shapes: dict[str, list[int]]
    updates: int = 0


def trained_shapes(framework: VTokFramework) -> dict[str, list[int]]:
    """Shapes of the trainable parameters, also when ZeRO-3 has sharded them."""
    parameters = [(name, p) for name, p in framework.named_parameters() if p.requires_grad]
    return {name: list(getattr(p, "ds_shape", p.shape)) for name, p in parameters}


def folder_of(output: Path, step: int) -> Path:
    return output / "checkpoints" / f"step_{step:08d}"


def newest(output: Path) -> Path | None:
    """The newest complete checkpoint of a run; one that was being written when the run died is ignored."""
    complete = sorted(marker.parent for marker in output.glob(f"checkpoints/step_*/{COMPLETE}"))
    return complete[-1] if complete else None


def read_state(folder: Path) -> RunState:
    return RunState(**json.loads((folder / "state.json").read_text()))


def save(engine: Engine, output: Path, state: RunState) -> None:
    """Write a checkpoint; all ranks call this at the same step."""
    folder = folder_of(output, state.step)
    if distributed.rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
    distributed.barrier()
    engine.save_checkpoint(str(folder.parent), tag=folder.name, save_latest=False, exclude_frozen_parameters=True)
    if distributed.rank() == 0:
        save_file(statistics(engine.module), folder / STATISTICS)
        (folder / "state.json").write_text(json.dumps(asdict(state)))
    distributed.barrier()
    if distributed.rank() == 0:
        (folder / COMPLETE).touch()


def check(folder: Path, expected: RunState) -> RunState:
    """The state of a checkpoint that a run can go on from.

    Args:
        expected: this run's seed, data and shapes.

    Raises:
        ConfigError: the checkpoint is of another model, seed or dataset.
    """
    state = read_state(folder)
    require_same_shapes(folder, state.shapes, expected.shapes)
    for name, hint in (
        ("seed", "set seed back"),
        ("manifest_hash", "point data.shards at the shards it was trained on"),
    ):
        was, now = getattr(state, name), getattr(expected, name)
        if was != now:
            raise ConfigError(f"cannot resume {folder}: its {name} is {was}, this run's is {now}; {hint}")
    return state


def resume(engine: Engine, folder: Path, state: RunState) -> None:
    """Load a checkpoint into an engine that was set up for it (see :func:`needs_conversion`)."""
    if needs_conversion(state):
        source = folder.with_name(f"universal_{state.step:08d}")
        distributed.rank_zero_first(lambda: convert(folder, source))
    else:
        source = folder
    settings = [
        {key: value for key, value in group.items() if key != "params"} for group in optimiser(engine).param_groups
    ]
    with silence():
        engine.load_checkpoint(str(source.parent), tag=source.name, load_module_strict=False)
    if source != folder:
        # DeepSpeed 0.19.8 gives all parameter groups the settings of the first and one shared step counter, which
        # then counts every group.
        for group, own in zip(optimiser(engine).param_groups, settings):
            group.update(own)
        for moments in optimiser(engine).state.values():
            moments["step"] = moments["step"].clone()
    set_statistics(engine.module, folder)
    distributed.barrier()
    if source != folder and distributed.rank() == 0:
        shutil.rmtree(source)


def optimiser(engine: Engine) -> torch.optim.Optimizer:
    """The optimiser of this rank's master partitions, inside DeepSpeed's own."""
    return engine.optimizer.optimizer


def needs_conversion(state: RunState) -> bool:
    """Whether a checkpoint was written by another number of ranks: DeepSpeed then reads a universal one only."""
    return state.ranks != distributed.world_size()


def convert(folder: Path, target: Path) -> None:
    """Turn a checkpoint into DeepSpeed's universal form, which any number of ranks can read."""
    shutil.rmtree(target, ignore_errors=True)
    workers = ("--num_extract_workers", "1", "--num_merge_workers", "1")
    command = ("-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", folder, "--output_folder", target)
    result = subprocess.run([sys.executable, *command, *workers], capture_output=True, text=True)
    if result.returncode:
        raise ConfigError(f"cannot convert {folder} for another number of ranks: {result.stderr.strip()[-300:]}")


@contextmanager
def silence() -> Iterator[None]:
    """Nothing on stdout or stderr: DeepSpeed's loaders talk a lot."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def require_same_shapes(folder: Path, stored: dict[str, list[int]], wanted: dict[str, list[int]]) -> None:
    """Raises ConfigError naming the first parameter that differs."""
    for name in stored.keys() | wanted.keys():
        if stored.get(name) != wanted.get(name):
            raise ConfigError(
                f"checkpoint {folder} is of another model: {name} is {stored.get(name, 'absent')} there and "
                f"{wanted.get(name, 'absent')} here; use the configuration it was trained with"
            )


def load_trained(framework: VTokFramework, output: Path) -> int:
    """Put a run's newest trained weights into a framework that is not sharded; returns their step.

    Raises:
        ConfigError: no complete checkpoint, or one of another model.
    """
    folder = newest(output)
    if folder is None:
        raise ConfigError(f"{output} holds no complete checkpoint: give the output folder of a training run")
    state = read_state(folder)
    require_same_shapes(folder, state.shapes, trained_shapes(framework))
    with silence():
        weights = get_fp32_state_dict_from_zero_checkpoint(
            str(folder.parent), tag=folder.name, exclude_frozen_parameters=True
        )
    with torch.no_grad():
        for name, parameter in framework.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])
    set_statistics(framework, folder)
    return state.step


def statistics(framework: VTokFramework) -> dict[str, torch.Tensor]:
    return {name: buffer.cpu().contiguous() for name, buffer in framework.feature_scale.named_buffers()}


def set_statistics(framework: VTokFramework, folder: Path) -> None:
    for name, value in load_file(folder / STATISTICS).items():
        framework.feature_scale.get_buffer(name).copy_(value)
