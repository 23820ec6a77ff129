"""Trains a VidTok with DeepSpeed ZeRO-2.

    deepspeed [launcher flags] pipelines/train_vidtok.py --config NAME_OR_YAML [--section.key value ...]

The first stage trains the whole model on small clips. The second trains the decoder alone on larger clips, from the
weights of the first:

    deepspeed pipelines/train_vidtok.py --config pipelines/configs/vidtok_stage1.yaml --data.shards DIR --output OUT1
    deepspeed pipelines/train_vidtok.py --config pipelines/configs/vidtok_stage2.yaml --data.shards DIR --output OUT2 \\
        --weights OUT1/vidtok.safetensors

OUTPUT/config.yaml and OUTPUT/vidtok.safetensors are the --config and --checkpoint of ``reconstruct.py`` and
``evaluate.py vidtok``.
"""

import math
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch

from pipelines.cli.config_files import save_config
from pipelines.cli.parsing import RunArguments
from pipelines.engine import distributed
from pipelines.engine.batch_plan import BatchPlan, plan_batch
from pipelines.engine.finite import DroppedSteps
from pipelines.engine.loading import in_flight
from pipelines.engine.loading.bad_samples import BadSamples
from pipelines.engine.loading.loader import micro_batches
from pipelines.engine.loading.workers import WatchedDataset, deaths_explained
from pipelines.engine.outputs import choose_output
from pipelines.engine.program import run_program
from pipelines.engine.run_control import Stopper
from pipelines.engine.saving import checkpoint
from pipelines.engine.saving.checkpoint import RunState
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.writing import Writer
from pipelines.engine.setup import (
    Engine,
    build_engine,
    deepspeed_config,
    learning_rate,
    repeat_to_the_last_digit,
    set_learning_rate,
)
from pipelines.engine.watching.metrics import Metrics
from pipelines.engine.watching.profiler import profiled
from pipelines.vidtok_training import data
from pipelines.vidtok_training.config import VidTokRunConfig, parse_vidtok_arguments
from pipelines.vidtok_training.models import config_of
from pipelines.vidtok_training.players import Autoencoder, Discriminator
from pipelines.vidtok_training.saving import DISCRIMINATOR, export, newest_step
from pipelines.vidtok_training.stepping import train_step
from vtok.config import require
from vtok.vidtok import load_model
from vtok.vidtok.initialisation import initialise
from vtok.vidtok.losses.perceptual import LPIPS, load_lpips
from vtok.weights import combined_hash, content_hash, open_file


def main(argv: list[str] | None = None) -> None:
    """Runs the command line; exit codes are those of :func:`run_program`."""
    run_program("train_vidtok", parse_vidtok_arguments, train, argv)


@dataclass
class Player:
    """One of the two trained modules.

    Attributes:
        engine: Its DeepSpeed engine.
        state: Its progress.
        writer: Writes its checkpoints.
    """

    engine: Engine
    state: RunState
    writer: Writer


@dataclass
class Run:
    """A run before its next step. The autoencoder's state says which step is next."""

    config: VidTokRunConfig
    output: Path
    plan: BatchPlan
    dataset: WatchedDataset
    autoencoder: Player
    discriminator: Player | None
    ema: Ema | None
    lpips: LPIPS | None
    max_steps: int

    @property
    def players(self) -> list[Player]:
        """The autoencoder, then the discriminator if there is one."""
        return [self.autoencoder] + ([self.discriminator] if self.discriminator else [])


def train(arguments: RunArguments[VidTokRunConfig], stopper: Stopper) -> bool:
    """Prepares, or resumes, and trains; returns whether the run reached its last step."""
    run = prepare(arguments)
    with deaths_explained(run.dataset), stopper.deferred():
        run_steps(run, stopper, arguments.profile)
    return run.autoencoder.state.step >= run.max_steps


def prepare(arguments: RunArguments[VidTokRunConfig]) -> Run:
    """Does everything before the first step, or before the next step of a resumed run.

    Raises:
        ConfigError: The configuration or a file is wrong. Nothing has been written then.
        DataError: The videos are wrong. Nothing has been written then.
    """
    config = arguments.config
    plan = plan_batch(config.train.global_batch_size, config.train.micro_batch_size, distributed.world_size())
    ds_config = distributed.every_rank(lambda: deepspeed_config(arguments.ds_config, config.train, plan))
    require(ds_config["zero_optimization"]["stage"] == 2, f"{arguments.ds_config}: a VidTok is trained with ZeRO-2")
    if config.train.deterministic:
        repeat_to_the_last_digit()
    output = distributed.rank_zero_first(lambda: choose_output(arguments))
    reader = distributed.every_rank(lambda: data.open_videos(config))
    dataset = data.build_dataset(config, reader)
    distributed.every_rank(lambda: in_flight.require_room(dataset.clips, plan.micro_batch_size, config.data.workers))

    torch.manual_seed(config.seed)
    vidtok = distributed.every_rank(lambda: load_model(config_of(config.model), config.weights))
    if config.weights is None:
        initialise(vidtok)
    models: list[Autoencoder | Discriminator] = [Autoencoder(vidtok, config.fix_encoder)]
    if config.loss.discriminator != "none":
        models.append(Discriminator(dims=int(config.loss.discriminator[0])))
    lpips = None
    if config.loss.lpips_vgg:
        lpips = distributed.every_rank(lambda: load_lpips(config.loss.lpips_vgg, config.loss.lpips_linear))
        lpips.to(distributed.device())

    frozen = distributed.rank_zero_first(lambda: {"encoder": encoder_hash(config)} if config.fix_encoder else {})
    states = [checkpoint.fresh_state(config.seed, reader.manifest_hash, plan.ranks, m, frozen) for m in models]
    folders = [output, output / DISCRIMINATOR][: len(models)]
    step = distributed.rank_zero_first(lambda: newest_step(output, len(models) > 1)) if arguments.resume else None
    found = [checkpoint.folder_of(folder, step) for folder in folders] if step is not None else []
    states = [checkpoint.check(*pair) for pair in zip(found, states)] or states
    engines = [build_engine(model, ds_config, config.train) for model in models]
    decay = config.train.ema_decay
    ema = Ema(engines[0], decay, config.train.ema_warmup) if decay is not None else None
    averages = (ema, None)
    players = [
        Player(engine, state, Writer(folder, config.checkpoint, engine, average))
        for engine, state, folder, average in zip(engines, states, folders, averages)
    ]
    # Written after the last check that can refuse the run: a folder with a configuration counts as a run.
    for folder in folders:
        distributed.rank_zero_first(lambda: save_config(config, folder / "config.yaml"))
    for player, folder, average in zip(players, found, averages):
        checkpoint.resume(player.engine, average, folder, player.state)
        player.state.ranks = plan.ranks

    max_steps = config.train.max_steps or math.ceil(config.train.epochs * len(reader) / plan.global_batch_size)
    discriminator = players[1] if len(players) > 1 else None
    return Run(config, output, plan, dataset, players[0], discriminator, ema, lpips, max_steps)


def encoder_hash(config: VidTokRunConfig) -> str:
    """Returns the hash of the frozen encoder's stored weights."""
    stored = {name: tensor for name, tensor in open_file(Path(config.weights)).items() if name.startswith("encoder.")}
    return combined_hash({name: content_hash(tensor) for name, tensor in stored.items()})


def run_steps(run: Run, stopper: Stopper, profile: range | None) -> None:
    """Takes optimiser steps up to ``max_steps`` or to a request to stop; logs and saves them.

    Args:
        run: The run.
        stopper: Tells whether a stop was requested.
        profile: Steps to trace, or ``None``.
    """
    config, plan, ema, own = run.config, run.plan, run.ema, run.autoencoder
    collate = partial(data.collate, crop=config.data.crop)
    batches = micro_batches(run.dataset, plan, config.data.workers, own.state.consumed_samples, collate=collate)
    metrics = Metrics(run.output, own.state.step, run.max_steps) if distributed.rank() == 0 else None
    bad = BadSamples(run.output, config.data.max_bad_share, own.state.step)
    dropped = DroppedSteps(config.train.max_nonfinite_steps)

    for number in profiled(range(own.state.step + 1, run.max_steps + 1), profile, run.output):
        playing = run.players if number > config.loss.discriminator_start else [own]
        lr = learning_rate(own.state.updates + 1, config.train, run.max_steps)
        for player in playing:
            set_learning_rate(player.engine, lr)
        critic = playing[1].engine if len(playing) > 1 else None
        step = train_step(own.engine, critic, batches, plan, own.state.updates, run.lpips)
        # Only now, because the first step is slow: kernels are compiled and loaders filled.
        distributed.set_timeout(timedelta(minutes=config.train.timeout_minutes))

        for player in run.players:
            player.state.step, player.state.consumed_samples = number, number * plan.global_batch_size
        for player in playing:
            player.state.updates += player.engine.was_step_applied()
        if ema and own.engine.was_step_applied():
            ema.update(own.state.updates)
        figures = step.figures | {
            "lr": lr,
            "ema_distance": ema.distance() if ema else None,
            "skipped": number - own.state.updates,
            "bad_samples": bad.record(number, step.replaced),
        }
        stop = stopper.requested()
        for player in run.players:
            player.writer.poll()
        figures["checkpoint_stall"] = 0.0
        if stop or number % config.checkpoint.every == 0 or number == run.max_steps:
            figures["checkpoint_stall"] = save(run)
        if metrics:
            metrics.write({"step": number} | figures)
        bad.check(own.state.consumed_samples)
        dropped.check([] if step.applied else step.keys)
        if stop:
            break

    distributed.set_timeout(distributed.ALONE_TIMEOUT)  # leaves time for the slowest rank to write
    for player in run.players:
        player.writer.wait()
    if metrics:
        metrics.close()


def save(run: Run) -> float:
    """Starts writing both checkpoints, and writes the weights; returns how many seconds training waited."""
    started = time.perf_counter()
    for player in run.players:
        player.writer.save(replace(player.state))
    export(run.autoencoder.engine, run.ema, run.output)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
