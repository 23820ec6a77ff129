"""Runs a training stage by stage (:mod:`pipelines.cli.stages`). A run without stages is one stage."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipelines.cli.config_files import save_config
from pipelines.cli.parsing import RunArguments
from pipelines.cli.stages import Stage, stages_of
from pipelines.config import InitConfig, RunConfig, TrainConfig
from pipelines.engine import distributed, memory, ownership
from pipelines.engine.models import TINY_MODELS
from pipelines.engine.outputs import claim_output
from pipelines.engine.run_control import Stopper
from pipelines.engine.saving.folders import begun
from pipelines.vtok_training import run
from vtok.config import require
from vtok.fp8 import require_fp8

FINISHED = "FINISHED"  # in a stage's folder: how long the stage was


def train(arguments: RunArguments[RunConfig], stopper: Stopper) -> bool:
    """Runs a whole training: prepares or resumes it and takes its steps, in all stages.

    Args:
        arguments: Arguments of the run.
        stopper: Receives requests to stop.

    Returns:
        Whether the run took its last step.

    Raises:
        ConfigError: A setting is wrong, or this machine cannot do what it asks for. What is known at once is refused
            before anything is written.
    """
    require_fp8(arguments.config.model.decoder.fp8)
    if not arguments.config.stages:
        return run.train(arguments, stopper)
    require(arguments.step is None, "--step goes with one stage: pass --resume OUTPUT/STAGE/checkpoints/step_...")
    stages = distributed.every_rank(lambda: stages_of(arguments.config))
    output = distributed.rank_zero_first(lambda: claim_output(arguments))
    with ownership.held(output):
        for number, stage in enumerate(stages):
            before, after = stages[:number], stages[number + 1 :]
            if not distributed.rank_zero_first(lambda: is_due(output, stage, after)):
                continue
            if distributed.rank() == 0:
                print(f"stage {number + 1} of {len(stages)}: {stage.folder}", flush=True)
            with begins(arguments.config, output):
                if not run.train(stage_arguments(arguments, output, stage, before), stopper):
                    return False
            distributed.rank_zero_first(lambda: (output / stage.folder / FINISHED).write_text(length(stage)))
            memory.give_back()
    return True


def length(stage: Stage) -> str:
    """Describes how long a stage is."""
    train: TrainConfig = stage.config.train
    return json.dumps({"max_steps": train.max_steps, "epochs": train.epochs})


def is_due(output: Path, stage: Stage, after: list[Stage]) -> bool:
    """Whether a stage has steps to take.

    Raises:
        ConfigError: It has, but a later stage has begun.
    """
    marker = output / stage.folder / FINISHED
    if marker.is_file() and marker.read_text() == length(stage):
        return False
    later = next((one.folder for one in after if begun(output / one.folder)), None)
    require(later is None, f"{output / stage.folder} cannot go on: {later} has begun from it; set its length back")
    return True


def stage_arguments(
    arguments: RunArguments[RunConfig], output: Path, stage: Stage, before: list[Stage]
) -> RunArguments[RunConfig]:
    """Returns the arguments of a stage's run. It starts from the weights of the stage before."""
    config, folder = stage.config, output / stage.folder
    if before:
        source = output / before[-1].folder
        config = replace(config, init=InitConfig(str(source)))
        if config.tiny_models:
            distributed.rank_zero_first(lambda: share_tiny_models(source, folder))
    return replace(arguments, config=config, output=folder)


def share_tiny_models(source: Path, folder: Path) -> None:
    """Links a stage's tiny models to those of the stage before."""
    folder.mkdir(exist_ok=True)
    if not (folder / TINY_MODELS).exists():
        (folder / TINY_MODELS).symlink_to(os.path.relpath(source / TINY_MODELS, folder))


@contextmanager
def begins(config: RunConfig, output: Path) -> Iterator[None]:
    """Writes the whole run's configuration, and removes it if the first stage fails before it begins.

    Args:
        config: The configuration, with its stages.
        output: Folder of the run.
    """
    path = output / "config.yaml"
    distributed.rank_zero_first(lambda: save_config(config, path))
    try:
        yield
    finally:
        if distributed.rank() == 0 and not any(output.glob("stage_*/config.yaml")):
            path.unlink(missing_ok=True)
