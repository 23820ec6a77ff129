"""A run of a VidTok: everything before its first step, and what one is; ``pipelines.engine.loop`` takes the steps."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from data_tools.dataset import ClipDataset
from pipelines.cli.parsing import RunArguments
from pipelines.engine import distributed, internals, ownership
from pipelines.engine.beginning import begin
from pipelines.engine.loading import in_flight
from pipelines.engine.loading.loader import Loaded, micro_batches
from pipelines.engine.loop import Player, Run, run_steps
from pipelines.engine.outputs import claim_output
from pipelines.engine.run_control import Stopper
from pipelines.engine.saving import checkpoint
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.writing import Writer
from pipelines.engine.setup import build_engine, settle
from pipelines.engine.stepping import Step
from pipelines.engine.watching.metrics import Metrics
from pipelines.engine.watching.trackers import require_installed
from pipelines.vidtok_training import data
from pipelines.vidtok_training.config import VidTokRunConfig
from pipelines.vidtok_training.models import config_of
from pipelines.vidtok_training.players import Autoencoder, Discriminator
from pipelines.vidtok_training.saving import DISCRIMINATOR, export, resumed_from
from pipelines.vidtok_training.stepping import train_step
from pipelines.vidtok_training.validation import Validation
from vtok.config import require
from vtok.vidtok import load_model
from vtok.vidtok.initialisation import initialise
from vtok.vidtok.losses.perceptual import LPIPS, load_lpips
from vtok.weights import combined_hash, content_hash, open_file


@dataclass
class Training:
    """A run of a VidTok before its next step.

    Attributes:
        run: What the loop needs of it. It trains the autoencoder and, if there is one, the discriminator.
        dataset: Its samples.
        lpips: The perceptual network, or ``None``.
        validation: Validates it on held-out videos, if there are any.
    """

    config: VidTokRunConfig
    run: Run
    dataset: ClipDataset
    lpips: LPIPS | None
    validation: Validation | None

    def take_step(self, batches: Iterator[Loaded], number: int) -> Step:
        """One optimiser step. The discriminator takes part after ``loss.discriminator_start`` steps."""
        own, *critics = self.run.players
        playing = critics and number > self.config.loss.discriminator_start
        critic = critics[0].engine if playing else None
        return train_step(own.engine, critic, batches, self.run.plan, own.state.updates, self.lpips)

    def export(self) -> None:
        """Writes the autoencoder's weights for inference. On a full disk, only the last step's must be written.

        Raises:
            OSError: The disk does not take those of the last step.
        """
        try:
            export(self.run.players[0], self.config, self.run.output)
        except OSError as error:
            if self.run.finished:
                raise
            if distributed.rank() == 0:
                print(f"warning: the next checkpoint writes it again: {error}", file=sys.stderr, flush=True)

    def judge(self, number: int, metrics: Metrics | None) -> None:
        """Validates, if it is due."""
        if self.validation is not None:
            self.validation.judge(number, self.run.max_steps, self.run.players[0], metrics)


def train(arguments: RunArguments[VidTokRunConfig], stopper: Stopper) -> bool:
    """Prepares, or resumes, and trains; returns whether the run took its last step. Afterwards its memory is free."""
    config = arguments.config
    require_installed(config.track)
    output = distributed.rank_zero_first(lambda: claim_output(arguments))
    with ownership.held(output):
        training = prepare(arguments, output)
        run, dataset = training.run, training.dataset
        collate = partial(data.collate, crop=config.data.crop)
        batches = micro_batches(
            dataset, run.plan, config.data.workers, run.state.consumed_samples, collate=collate,
            patience=config.train.sample_seconds,
        )  # fmt: skip
        with stopper.deferred():
            finished = run_steps(
                run, batches, training.take_step, stopper, arguments.profile, training.export, training.judge
            )
        for player in run.players:
            internals.release(player.engine)
    return finished


def prepare(arguments: RunArguments[VidTokRunConfig], output: Path) -> Training:
    """Does everything before the first step, or before the next step of a resumed run.

    Raises:
        ConfigError: The configuration or a file is wrong. Nothing has been written then.
        DataError: The videos are wrong. Nothing has been written then.
    """
    config = arguments.config
    plan, ds_config = settle(config.train, arguments.ds_config)
    require(ds_config["zero_optimization"]["stage"] == 2, f"{arguments.ds_config}: a VidTok is trained with ZeRO-2")
    reader = distributed.every_rank(lambda: data.open_videos(config))
    held_out = distributed.every_rank(lambda: data.open_held_out(config))
    dataset = data.build_dataset(config, reader)
    distributed.every_rank(lambda: in_flight.require_room(dataset, plan.micro_batch_size, config.data.workers))
    models, lpips = load_models(config)

    frozen = distributed.rank_zero_first(lambda: {"encoder": encoder_hash(config)} if config.fix_encoder else {})
    states = [checkpoint.fresh_state(config.seed, reader.manifest_hash, plan.ranks, m, frozen) for m in models]
    folders = [output, output / DISCRIMINATOR][: len(models)]
    found = resumed_from(folders, arguments.step) if arguments.resume else []
    states = [checkpoint.check(*pair) for pair in zip(found, states)] or states
    engines = [build_engine(model, ds_config, config.train) for model in models]
    decay = config.train.ema_decay
    averages = [Ema(engines[0], decay, config.train.ema_warmup) if decay is not None else None, None]
    players = [
        Player(engine, state, Writer(folder, config.checkpoint, engine, average), average)
        for engine, state, folder, average in zip(engines, states, folders, averages)
    ]
    run = begin(config, folders, found, plan, players, len(reader))
    return Training(config, run, dataset, lpips, Validation(config, held_out, lpips) if held_out else None)


def load_models(config: VidTokRunConfig) -> tuple[list[Autoencoder | Discriminator], LPIPS | None]:
    """Returns the modules to train, at step 0, and the perceptual network."""
    torch.manual_seed(config.seed)
    vidtok = distributed.every_rank(lambda: load_model(config_of(config.model), config.weights))
    if config.weights is None:
        initialise(vidtok)
    if config.train.gradient_checkpointing:
        vidtok.checkpoint_blocks()
    models: list[Autoencoder | Discriminator] = [Autoencoder(vidtok, config.fix_encoder)]
    if config.loss.discriminator != "none":
        models.append(Discriminator(dims=int(config.loss.discriminator[0])))
    if not config.loss.lpips_vgg:
        return models, None
    lpips = distributed.every_rank(lambda: load_lpips(config.loss.lpips_vgg, config.loss.lpips_linear))
    return models, lpips.to(distributed.device())


def encoder_hash(config: VidTokRunConfig) -> str:
    """Returns the hash of the frozen encoder's stored weights."""
    stored = {name: tensor for name, tensor in open_file(Path(config.weights)).items() if name.startswith("encoder.")}
    return combined_hash({name: content_hash(tensor) for name, tensor in stored.items()})
