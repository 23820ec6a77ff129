"""A run of a codec: everything before its first step, and what one is; ``pipelines.engine.loop`` takes the steps.

OUTPUT/checkpoints/   as of every run (pipelines.engine.saving.checkpoint)
       codec/         the newest weights for the tokeniser, written again with each checkpoint
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from data_tools.dataset import ClipDataset
from pipelines.cli.parsing import RunArguments
from pipelines.codec_training.config import CodecRunConfig
from pipelines.codec_training.data import Inputs, Reading, collate
from pipelines.codec_training.recipes import Recipe, Trainable
from pipelines.codec_training.validation import Validation
from pipelines.engine import distributed, internals, ownership
from pipelines.engine.beginning import begin, number_of_steps
from pipelines.engine.loading import in_flight
from pipelines.engine.loading.loader import Loaded, micro_batches
from pipelines.engine.loop import Player, Run, run_steps
from pipelines.engine.outputs import choose_output, claim_output
from pipelines.engine.run_control import Stopper
from pipelines.engine.saving import checkpoint
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.writing import Writer
from pipelines.engine.setup import build_engine, settle
from pipelines.engine.stepping import Step, accumulate, backward
from pipelines.engine.watching.metrics import Metrics
from pipelines.engine.watching.trackers import require_installed
from pipelines.vidtok_training.data import build_dataset, open_held_out, open_videos
from pipelines.vidtok_training.saving import write
from pipelines.vtok_training.run import resumed_from
from vtok.config import require

FOLDER = "codec"


class Trainee(nn.Module):
    """A codec in its engine.

    Args:
        model: The codec.

    Attributes:
        measured: Empty. The engine saves the buffers of a module of this name.
    """

    def __init__(self, model: Trainable):
        super().__init__()
        self.model, self.measured = model, nn.Module()

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        """Returns the losses of a micro-batch."""
        return self.model.training_losses(values)


@dataclass
class Training:
    """A run of a codec before its next step.

    Attributes:
        recipe: The codec.
        run: What the loop needs of the run.
        dataset: Its samples.
        validation: Validates it on held-out videos, if there are any.
    """

    recipe: Recipe
    run: Run
    dataset: ClipDataset
    validation: Validation | None

    def take_step(self, batches: Iterator[Loaded], number: int) -> Step:
        """Takes one optimiser step. The losses of a micro-batch are its own, so they do not depend on the ranks."""
        engine = self.run.players[0].engine

        def micro_step(inputs: Inputs) -> dict[str, Tensor]:
            losses = engine(inputs.values)
            backward(engine, losses["loss"])
            return losses

        step = accumulate(micro_step, self.recipe.losses, batches, self.run.plan, engine.device)
        figures = step.figures | {"grad_norm": float(engine.get_global_grad_norm())}
        return step._replace(figures=figures, applied=(engine.was_step_applied(),))

    def judge(self, number: int, metrics: Metrics | None) -> None:
        """Validates, if it is due."""
        if self.validation is not None:
            self.validation.judge(number, self.run.max_steps, self.run.players[0], metrics)

    def export(self) -> None:
        """Writes the codec's folder: the average of the weights if the run keeps one. On a full disk, only the last
        step's must be written.

        Raises:
            OSError: The disk does not take that of the last step.
        """
        player, folder = self.run.players[0], self.run.output / FOLDER
        buffers = player.ema.buffers if player.ema else internals.masters(player.engine)
        try:
            folder.mkdir(exist_ok=True)
            write(player.engine, buffers, {}, folder / self.recipe.weights)
            distributed.rank_zero_first(lambda: self.recipe.describe(folder))
        except OSError as error:
            if self.run.finished:
                raise
            if distributed.rank() == 0:
                print(f"warning: the next checkpoint writes it again: {error}", file=sys.stderr, flush=True)


def train(arguments: RunArguments[CodecRunConfig], stopper: Stopper, kind: type[Recipe]) -> bool:
    """Prepares, or resumes, and trains; returns whether the run took its last step. Afterwards its memory is free.

    Args:
        arguments: Arguments of the run.
        stopper: Receives requests to stop.
        kind: The codec.
    """
    config = arguments.config
    require_installed(config.track)
    recipe = kind(config.model, config.data)
    output = distributed.rank_zero_first(lambda: claim_output(arguments))
    with ownership.held(output):
        training = prepare(arguments, output, recipe)
        run = training.run
        batches = micro_batches(
            training.dataset, run.plan, config.data.workers, run.state.consumed_samples, collate=collate,
            patience=config.train.sample_seconds,
        )  # fmt: skip
        with stopper.deferred():
            finished = run_steps(
                run, batches, training.take_step, stopper, arguments.profile, training.export, training.judge
            )
        internals.release(run.players[0].engine)
    return finished


def prepare(arguments: RunArguments[CodecRunConfig], output: Path, recipe: Recipe) -> Training:
    """Does everything before the first step, or before the next step of a resumed run.

    Raises:
        ConfigError: The configuration is wrong. Nothing has been written then.
        DataError: The videos are wrong. Nothing has been written then.
    """
    config = arguments.config
    plan, ds_config = settle(config.train, arguments.ds_config)
    require(ds_config["zero_optimization"]["stage"] == 2, f"{arguments.ds_config}: a codec is trained with ZeRO-2")
    reader = distributed.every_rank(lambda: open_videos(config))
    held_out = distributed.every_rank(lambda: open_held_out(config))
    dataset = build_dataset(config, reader, Reading(recipe.read, config.data.crop))
    distributed.every_rank(lambda: in_flight.require_room(dataset, plan.micro_batch_size, config.data.workers))
    torch.manual_seed(config.seed)
    model = Trainee(recipe.build())
    state = checkpoint.fresh_state(config.seed, reader.manifest_hash, plan.ranks, model, {})
    found = resumed_from(output, arguments.step) if arguments.resume else None
    if found:
        state = checkpoint.check(found, state)
    engine = build_engine(model, ds_config, config.train)
    ema = Ema(engine, config.train.ema_decay, config.train.ema_warmup) if config.train.ema_decay is not None else None
    player = Player(engine, state, Writer(output, config.checkpoint, engine, ema), ema)
    run = begin(config, [output], [found] if found else [], plan, [player], len(reader))
    return Training(recipe, run, dataset, Validation(config, held_out, recipe) if held_out else None)


def dry_run(arguments: RunArguments[CodecRunConfig], kind: type[Recipe]) -> None:
    """Checks a run up to its first step and prints what it would be. It writes nothing.

    Raises:
        ConfigError: A setting or the DeepSpeed JSON is wrong.
        DataError: The videos are wrong.
    """
    config = arguments.config
    recipe = kind(config.model, config.data)
    settle(config.train, arguments.ds_config)
    reader = open_videos(config)
    parameters = sum(parameter.numel() for parameter in recipe.build().parameters())
    print(f"output       {choose_output(arguments)}")
    print(f"codec        {parameters:,} parameters")
    print(f"data         {len(reader)} videos")
    if held_out := open_held_out(config):
        print(f"validation   {min(config.validation.samples, len(held_out))} of {len(held_out)} held-out videos")
    print(f"steps        {number_of_steps(config.train, len(reader))}")
