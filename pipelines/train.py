"""Train VTok with DeepSpeed ZeRO-3.

    deepspeed [launcher flags] pipelines/train.py --config X.yaml --ds_config Y.json [--section.key value ...]
    vtok-train --data_root DIR --batch_size 8 --epochs 10          one rank, no launcher

One batch from tar to loss: ``data_tools.dataset`` (decode), ``pipelines.engine.loading.loader`` (text, collate),
``vtok.framework.VTokFramework.forward`` (losses), ``pipelines.engine.stepping`` (update).
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from pipelines.cli.config_files import save_config
from pipelines.cli.parsing import RunArguments, parse_run_arguments
from pipelines.config import RunConfig
from pipelines.engine import calibration, distributed, models, weights
from pipelines.engine.batch_plan import BatchPlan, plan_batch
from pipelines.engine.finite import DroppedSteps
from pipelines.engine.loading import in_flight, precomputed
from pipelines.engine.loading.bad_samples import BadSamples
from pipelines.engine.loading.loader import build_dataset, micro_batches
from pipelines.engine.loading.workers import WatchedDataset, deaths_explained
from pipelines.engine.outputs import choose_output, find_held_out, find_shards, open_dataset, open_shards
from pipelines.engine.program import run_program
from pipelines.engine.run_control import Stopper
from pipelines.engine.saving import checkpoint
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.writing import Writer
from pipelines.engine.setup import (
    Engine,
    build_engine,
    deepspeed_config,
    learning_rate,
    precision,
    repeat_to_the_last_digit,
    set_learning_rate,
)
from pipelines.engine.stepping import train_step
from pipelines.engine.watching.metrics import Metrics
from pipelines.engine.watching.profiler import profiled
from pipelines.engine.watching.utilisation import Utilisation
from pipelines.engine.watching.validation import Validation
from pipelines.inference import demo


def main(argv: list[str] | None = None) -> None:
    """Console entry; exit codes are those of :func:`run_program`."""
    run_program("vtok-train", parse_run_arguments, train, argv)


@dataclass
class Run:
    """A run about to take its next step; ``state`` says which."""

    config: RunConfig
    output: Path
    plan: BatchPlan
    dataset: WatchedDataset
    validation: Validation | None
    engine: Engine
    ema: Ema | None
    writer: Writer
    state: checkpoint.RunState
    utilisation: Utilisation | None  # the first rank's
    max_steps: int


def train(arguments: RunArguments, stopper: Stopper) -> bool:
    """A whole run: prepare, resume if asked, step by step; returns whether it came to its end."""
    run = prepare(arguments)
    with deaths_explained(run.dataset), stopper.deferred():
        run_steps(run, stopper, arguments.profile)
    finished = run.state.step >= run.max_steps
    if finished and run.config.demo:
        distributed.rank_zero_first(lambda: demo.show(run.config, run.output))
    return finished


def prepare(arguments: RunArguments) -> Run:
    """Everything up to the first step, or up to the next one of a run that is resumed.

    Raises:
        ConfigError, DataError: nothing has been written then but the data that the run makes for itself.
    """
    config = arguments.config
    plan = plan_batch(config.train.global_batch_size, config.train.micro_batch_size, distributed.world_size())
    ds_config = distributed.every_rank(lambda: deepspeed_config(arguments.ds_config, config.train, plan))
    if config.train.deterministic:
        repeat_to_the_last_digit()

    output = distributed.rank_zero_first(lambda: choose_output(arguments))
    shards = distributed.rank_zero_first(lambda: find_shards(config, output))
    held_out = distributed.rank_zero_first(lambda: find_held_out(config, shards))
    reader = open_shards(config, shards)
    if config.tiny_models:
        texts = models.dataset_texts(reader)
        distributed.rank_zero_first(lambda: models.prepare_tiny_models(config, output, texts))
        models.point_to_tiny_models(config)

    judged = open_dataset(config, held_out) if held_out else None
    unused = precomputed.unused_encoders(config, reader, judged)
    framework = distributed.every_rank(
        lambda: models.load_framework(config, output, weights.placement(ds_config, precision(config.train)), unused)
    )
    dataset = build_dataset(config, reader, framework, training=True)
    validation = Validation(config, judged, framework) if held_out else None
    loaders = 2 if validation else 1
    distributed.every_rank(
        lambda: in_flight.require_room(dataset.clips, plan.micro_batch_size, config.data.workers, loaders)
    )

    frozen = weights.frozen_hashes(framework)
    state = checkpoint.fresh_state(config.seed, reader.manifest_hash, plan.ranks, framework, frozen)
    found = checkpoint.newest(output) if arguments.resume else None
    if found:
        state = checkpoint.check(found, state)
    engine = build_engine(framework, ds_config, config.train)
    ema = Ema(engine, config.train.ema_decay, config.train.ema_warmup) if config.train.ema_decay is not None else None
    writer = Writer(output, config.checkpoint, engine, ema)
    # Written when all that can be refused has been: a folder with a configuration is a run.
    distributed.rank_zero_first(lambda: save_config(config, output / "config.yaml"))

    if found:
        checkpoint.resume(engine, ema, found, state)
        state.ranks = plan.ranks
    else:
        end = config.train.calibration_batches * plan.global_batch_size
        batches = micro_batches(dataset, plan, config.data.workers, end=end)
        with deaths_explained(dataset):
            calibration.calibrate(engine.module, batches, engine.device)

    utilisation = None
    if distributed.rank() == 0:
        captions = models.dataset_texts(reader, most=50, names=["caption"])
        utilisation = Utilisation(config, framework, plan.ranks, captions)
    max_steps = config.train.max_steps or math.ceil(config.train.epochs * len(reader) / plan.global_batch_size)
    return Run(config, output, plan, dataset, validation, engine, ema, writer, state, utilisation, max_steps)


def run_steps(run: Run, stopper: Stopper, profile: range | None) -> None:
    """Optimiser steps up to ``max_steps`` or to a request to stop: logged, saved and judged.

    Args:
        profile: steps to write a trace of.
    """
    config, plan, engine, ema, state = run.config, run.plan, run.engine, run.ema, run.state
    batches = micro_batches(run.dataset, plan, config.data.workers, state.consumed_samples)
    metrics = Metrics(run.output, state.step, run.max_steps) if distributed.rank() == 0 else None
    bad = BadSamples(run.output, config.data.max_bad_share, state.step)
    dropped = DroppedSteps(config.train.max_nonfinite_steps)

    for number in profiled(range(state.step + 1, run.max_steps + 1), profile, run.output):
        lr = learning_rate(state.updates + 1, config.train, run.max_steps)
        set_learning_rate(engine, lr)
        step = train_step(engine, batches, plan, config.model.loss.with_decoder(number))
        # The first step is slow: kernels are compiled and loaders filled.
        distributed.set_timeout(timedelta(minutes=config.train.timeout_minutes))

        state.step, state.consumed_samples = number, state.consumed_samples + plan.global_batch_size
        state.updates += step.applied
        if ema and step.applied:
            ema.update(state.updates)
        figures = step.figures | {
            "lr": lr,
            "ema_distance": ema.distance() if ema else None,
            "skipped": number - state.updates,
            "bad_samples": bad.record(number, step.replaced),
        }
        stop = stopper.requested()
        run.writer.poll()
        save = stop or number % config.checkpoint.every == 0 or number == run.max_steps
        figures["checkpoint_stall"] = run.writer.save(replace(state)) if save else 0.0
        if metrics:
            metrics.write({"step": number} | figures | run.utilisation.at(figures["samples_per_s"]))
        bad.check(state.consumed_samples)
        dropped.check([] if step.applied else step.keys)
        if stop:
            break
        if run.validation and run.validation.due(number, run.max_steps):
            with ema.applied() if ema else nullcontext():
                judged = run.validation.run(engine.module)
            if metrics:
                metrics.validation(number, *judged)

    distributed.set_timeout(distributed.ALONE_TIMEOUT)  # for the slowest rank's writing
    run.writer.wait()
    if metrics:
        metrics.close()


if __name__ == "__main__":
    main()
