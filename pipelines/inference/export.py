"""Writes a checkpoint of a run as a folder of weights."""

import json
import os
import shutil
from pathlib import Path

import torch

from pipelines.cli.steps import run_of
from pipelines.engine import models
from pipelines.engine.saving import kept
from pipelines.engine.saving.checkpoint import load_trained, read_state
from pipelines.engine.saving.choosing import located
from pipelines.inference.load import config_of
from vtok.assembly.adapters import merged
from vtok.assembly.build import frozen_part_names
from vtok.assembly.pretrained import CONFIG, save_pretrained
from vtok.config import ConfigError, require
from vtok.parts import LANGUAGE, part_of
from vtok.weights.materialise import whole

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def export(checkpoint: Path, output: Path, ema: bool = False, dtype: str = "bf16", merge: bool = False) -> int:
    """Writes the folder ``output``. It appears complete or not at all.

    Args:
        checkpoint: Folder of a run, for its newest undamaged checkpoint; or folder of one of its checkpoints.
        output: Folder to write.
        ema: Whether to export the average of the weights.
        dtype: Type of the written weights, a key of ``DTYPES``.
        merge: Whether to add the language model's adapters to its weights. Else they are written alone.

    Returns:
        The step of the weights.

    Raises:
        ConfigError: There is no such run or checkpoint, it is damaged, or ``output`` is not empty; there are no
            adapters to merge; or adapters alone would lack the language model that they belong to.
    """
    output = output.resolve()  # "." has no name of its own, and a link cannot be replaced by a folder
    if output.exists() and (not output.is_dir() or any(path != unfinished(output) for path in output.iterdir())):
        raise ConfigError(f"{output} is there already: choose another --output")
    config = config_of(run_of(checkpoint))
    for lora in filter(None, (config.model.mllm.lora, config.model.decoder.lora)):
        lora.bits = 16
    run, folder = located(checkpoint)
    require(not merge or config.model.mllm.lora is not None, "--merge: the run has no adapters (model.mllm.lora)")
    if config.model.mllm.lora and not merge:
        require_published(run, folder)
    frozen = frozen_part_names(config.model)  # the folder names them and holds no copy
    framework = models.load_framework(config, run, folder, whole(DTYPES[dtype]), without=frozen)
    step = load_trained(framework, folder, ema)
    if merge:
        merged(framework)
    part = unfinished(output)
    shutil.rmtree(part, ignore_errors=True)
    try:
        save_pretrained(framework, part)
        add_seconds(part / CONFIG, config.data.seconds)
        move(part, output)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # of a write that failed
    return step


def unfinished(output: Path) -> Path:
    """Returns the folder that an export is written to first, in the file system of ``output``.

    That is inside ``output`` if it is there already. It may be a mount point, which no other folder can replace.
    """
    return output / ".part" if output.is_dir() else output.with_name(f"{output.name}.part")


def move(part: Path, output: Path) -> None:
    """Moves an export that is complete to ``output``: at once, or file by file if the folder is there already.

    The file that makes the folder an export comes last.
    """
    if not output.is_dir():
        os.replace(part, output)
        return
    for path in sorted(part.iterdir(), key=lambda path: path.name == CONFIG):
        os.replace(path, output / path.name)


def require_published(run: Path, folder: Path) -> None:
    """Raises ConfigError unless all of the language model but its adapters is as ``mllm.weights`` holds it."""
    with kept.opened(run, folder) as frozen:
        own = [name for name in (*frozen, *read_state(folder).shapes) if part_of(name) in LANGUAGE]
    require(
        not own,
        f"{run} has its own language model beside the adapters ({len(own)} parameters): export both with --merge",
    )


def add_seconds(path: Path, seconds: float) -> None:
    """Adds the length of the run's samples to an export's settings: what is longer is seen with several key frames."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": seconds}, indent=2))
