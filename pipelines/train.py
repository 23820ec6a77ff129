"""Train VTok with DeepSpeed ZeRO-3.

    deepspeed [launcher flags] pipelines/train.py --config X.yaml --ds_config Y.json [--section.key value ...]
    vtok-train --data_root DIR --batch_size 8 --epochs 10          one rank, no launcher

One batch from tar to loss: ``data_tools.dataset`` (decode), ``pipelines.engine.loader`` (text, collate),
``vtok.framework.VTokFramework.forward`` (losses), :func:`train_step` (update).
"""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from data_tools.errors import BadVideo, DataError
from data_tools.shards import ShardReader
from data_tools.streaming.mixture import Mixture
from pipelines import demo
from pipelines.config import RunArguments, RunConfig, die, parse_run_arguments, save_config
from pipelines.engine import calibration, checkpoint, distributed, memory, models, weights
from pipelines.engine.bad_samples import BadSamples
from pipelines.engine.batch_plan import BatchPlan, plan_batch
from pipelines.engine.ema import Ema
from pipelines.engine.finite import DroppedSteps, finite_on_all_ranks
from pipelines.engine.loader import Loaded, build_dataset, micro_batches
from pipelines.engine.metrics import Metrics, batch_digest, in_global_order
from pipelines.engine.outputs import choose_output, find_held_out, find_shards, open_dataset, open_shards
from pipelines.engine.profiler import profiled
from pipelines.engine.setup import (
    Engine,
    build_engine,
    deepspeed_config,
    learning_rate,
    precision,
    repeat_to_the_last_digit,
    set_learning_rate,
)
from pipelines.engine.utilisation import Utilisation
from pipelines.engine.validation import LOSSES, Validation
from pipelines.engine.workers import LoaderError, deaths_explained
from pipelines.engine.writing import Writer
from vtok.config import ConfigError


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    try:
        arguments = parse_run_arguments(sys.argv[1:] if argv is None else argv)
        distributed.connect()
        train(arguments)
    except (ConfigError, DataError) as error:
        die("vtok-train", error, 0 if isinstance(error, LoaderError) else distributed.rank())


def train(arguments: RunArguments) -> None:
    """A whole run: prepare, resume if asked, step by step to the end."""
    config = arguments.config
    plan = plan_batch(config.train.global_batch_size, config.train.micro_batch_size, distributed.world_size())
    ds_config = deepspeed_config(arguments.ds_config, config.train, plan)
    if config.train.deterministic:
        repeat_to_the_last_digit()

    output = distributed.rank_zero_first(lambda: choose_output(arguments))
    shards = distributed.rank_zero_first(lambda: find_shards(config, output))
    reader = open_shards(config, shards)
    held_out = distributed.rank_zero_first(lambda: find_held_out(config, shards))
    if config.tiny_models:
        distributed.rank_zero_first(lambda: prepare_tiny_models(config, output, reader))
        models.point_to_tiny_models(config)

    framework = distributed.every_rank(
        lambda: models.load_framework(config, output, weights.placement(ds_config, precision(config.train)))
    )
    shapes = checkpoint.trained_shapes(framework)
    dataset = build_dataset(config, reader, framework, training=True)
    validation = Validation(config, open_dataset(config, held_out), framework) if held_out else None
    state = checkpoint.RunState(0, 0, 0, config.seed, reader.manifest_hash, plan.ranks, shapes)
    found = checkpoint.newest(output) if arguments.resume else None
    if found:
        state = checkpoint.check(found, state)
    # Written when all that can be refused has been: a folder with a configuration is a run.
    distributed.rank_zero_first(lambda: save_config(config, output / "config.yaml"))
    engine = build_engine(framework, ds_config, config.train)
    ema = Ema(engine, config.train.ema_decay, config.train.ema_warmup) if config.train.ema_decay is not None else None

    if found:
        checkpoint.resume(engine, ema, found, state)
        state.ranks = plan.ranks
    else:
        end = config.train.calibration_batches * plan.global_batch_size
        batches = micro_batches(dataset, plan, config.data.workers, end=end)
        with deaths_explained(dataset):
            calibration.calibrate(engine.module, batches, engine.device)

    max_steps = config.train.max_steps or math.ceil(config.train.epochs * len(reader) / plan.global_batch_size)
    with deaths_explained(dataset):
        run_steps(engine, ema, config, plan, dataset, state, max_steps, output, validation, arguments.profile)
    if config.demo:
        distributed.rank_zero_first(lambda: demo.show(config, output))


def run_steps(
    engine: Engine,
    ema: Ema | None,
    config: RunConfig,
    plan: BatchPlan,
    dataset,
    state: checkpoint.RunState,
    max_steps: int,
    output: Path,
    validation: Validation | None,
    profile: range | None,
) -> None:
    """Optimiser steps ``state.step + 1`` ... ``max_steps``, logged, judged and saved."""
    batches = micro_batches(dataset, plan, config.data.workers, state.consumed_samples)
    metrics = Metrics(output, state.step, max_steps) if distributed.rank() == 0 else None
    utilisation = Utilisation(config, engine.module, plan.ranks) if distributed.rank() == 0 else None
    bad = BadSamples(output, config.data.max_bad_share, state.step)
    dropped_steps = DroppedSteps(config.train.max_nonfinite_steps)
    writer = Writer(output, config.checkpoint)
    for step in profiled(range(state.step + 1, max_steps + 1), profile, output):
        lr = learning_rate(state.updates + 1, config.train, max_steps)
        set_learning_rate(engine, lr)
        line, replaced, dropped = train_step(engine, batches, plan, config.model.loss.with_decoder(step))
        state.step, state.consumed_samples = step, state.consumed_samples + plan.global_batch_size
        state.updates += not dropped
        if ema and not dropped:
            ema.update(state.updates)
        if ema:
            line["ema_distance"] = ema.distance()
        bad.record(step, replaced)
        stalled = 0.0
        writer.poll()
        if step % config.checkpoint.every == 0 or step == max_steps:
            writer.save(engine, ema, replace(state))
            stalled = writer.stalled
        if metrics:
            line |= utilisation.at(line["samples_per_s"])
            metrics.write(
                {
                    "step": step,
                    **line,
                    "lr": lr,
                    "skipped": step - state.updates,
                    "bad_samples": bad.count,
                    "checkpoint_stall": stalled,
                }
            )
        bad.check(state.consumed_samples)
        dropped_steps.check(dropped)
        if validation and validation.due(step, max_steps):
            with ema.applied() if ema else nullcontext():
                validated = validation.run(engine.module)
            if metrics:
                metrics.validation(step, *validated)
    writer.wait()
    if metrics:
        metrics.close()


def train_step(
    engine: Engine, batches: Iterator[Loaded], plan: BatchPlan, with_decoder: bool = True
) -> tuple[dict, list[tuple[int, str, str]], list[str]]:
    """One optimiser step: ``plan.accumulation`` micro-batches forward and backward, then the update.

    Every micro-batch has the same number of samples, so averaging over micro-steps and ranks (which DeepSpeed does to
    the gradients) gives the mean over the global batch.

    Args:
        with_decoder: whether L_dec is part of this step; its figure is ``None`` if not.

    Returns:
        The step's figures, equal on all ranks but for times; the samples replaced in it on any rank; and the keys of
        its batch if the update was dropped (see ``engine.finite``). Waiting and memory are those of the rank with the
        most.
    """
    started, waited = time.perf_counter(), 0.0
    sums = torch.zeros(len(LOSSES) + 1, dtype=torch.float64, device=engine.device)
    keys, replaced = [], []
    for _ in range(plan.accumulation):
        asked = time.perf_counter()
        loaded = next(batches)
        waited += time.perf_counter() - asked
        losses = engine(loaded.batch.to(engine.device), with_decoder=with_decoder)
        engine.backward(finite_on_all_ranks(losses["loss"]))
        engine.step()
        sums += torch.stack([losses[name].detach().double() for name in (*LOSSES, "tokens")])
        keys.append(loaded.batch.keys)
        replaced += loaded.replaced

    means = (distributed.mean_over_ranks(sums) / plan.accumulation).tolist()
    gathered = distributed.gather_lists([keys, replaced, {"waited": waited, **memory.used_gb()}])
    all_keys, all_replaced, used = zip(*gathered)
    batch_keys = in_global_order(all_keys)
    most = {name: max(rank[name] for rank in used) for name in used[0]}
    seconds = time.perf_counter() - started
    line = dict(zip(LOSSES, means)) | {
        "grad_norm": float(engine.get_global_grad_norm()),
        "samples_per_s": plan.global_batch_size / seconds,
        "tokens_per_s": means[-1] * plan.accumulation * plan.ranks / seconds,
        "data_wait": most.pop("waited") / seconds,
        **most,
        "batch_digest": batch_digest(batch_keys),
    }
    if not with_decoder:
        line["loss_dec"] = None
    replaced = [bad for rank_replaced in all_replaced for bad in rank_replaced]
    return line, replaced, [] if engine.was_step_applied() else batch_keys


def prepare_tiny_models(config: RunConfig, output: Path, reader: ShardReader | Mixture) -> None:
    """Tiny models in the run's folder, once: a run that has begun keeps those it began with."""
    if not (output / "config.yaml").exists():
        models.prepare_tiny_models(config, output, dataset_texts(reader))


def dataset_texts(reader: ShardReader | Mixture, most: int = 1000) -> list[str]:
    """Captions, questions and answers of the first readable samples: what the tiny tokenizer is trained on."""
    texts = []
    for row in range(min(most, len(reader))):
        try:
            meta = reader.read(row).meta
        except BadVideo:  # training replaces it and says so
            continue
        texts += [meta[name] for name in ("caption", "question", "answer") if meta.get(name)]
    return texts


if __name__ == "__main__":
    main()
