"""Runs VTok training: prepares or resumes a run, and defines its step. ``pipelines.engine.loop`` takes the steps."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from data_tools.buckets import BucketedOrder
from data_tools.dataset import ClipDataset
from data_tools.shards import ShardReader
from data_tools.streaming.mixture import Mixture
from pipelines.cli.parsing import RunArguments, load_config
from pipelines.config import RunConfig
from pipelines.demo import result
from pipelines.engine import calibration, distributed, initial, internals, models, ownership, weights
from pipelines.engine.batch_plan import BatchPlan
from pipelines.engine.beginning import begin
from pipelines.engine.compiling import compile_blocks
from pipelines.engine.loading import in_flight, precomputed
from pipelines.engine.loading.buckets import settle_buckets
from pipelines.engine.loading.loader import Loaded, build_dataset, micro_batches, order_settings
from pipelines.engine.loop import Player, Run, run_steps
from pipelines.engine.outputs import (
    HeldOut,
    claim_output,
    find_held_out,
    find_shards,
    open_held_out,
    open_shards,
)
from pipelines.engine.run_control import Stopper
from pipelines.engine.saving import checkpoint, choosing, kept
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.writing import Writer
from pipelines.engine.setup import build_engine, precision, settle
from pipelines.engine.stepping import Step, train_step
from pipelines.engine.watching.metrics import Metrics
from pipelines.engine.watching.trackers import require_installed
from pipelines.engine.watching.utilisation import Utilisation
from pipelines.engine.watching.validation import Validation
from pipelines.vtok_training.summary import growth_line, mixture_lines, origin
from vtok.adapter_names import is_base
from vtok.config import require
from vtok.framework import VTokFramework


def train(arguments: RunArguments[RunConfig], stopper: Stopper) -> bool:
    """Runs a whole training: prepares or resumes it and takes its steps. Afterwards its memory is free.

    Args:
        arguments: Arguments of the run.
        stopper: Receives requests to stop.

    Returns:
        Whether the run took its last step.
    """
    config = arguments.config
    require_installed(config.track)
    output = distributed.rank_zero_first(lambda: claim_output(arguments))
    with ownership.held(output):
        training = prepare(arguments, output)
        run, dataset = training.run, training.dataset
        batches = micro_batches(
            dataset, run.plan, config.data.workers, run.state.consumed_samples, patience=config.train.sample_seconds
        )
        with stopper.deferred():
            finished = run_steps(run, batches, training.take_step, stopper, arguments.profile, judge=training.judge)
        internals.release(run.players[0].engine)
        if finished and config.demo:
            distributed.rank_zero_first(lambda: result.show(config, output))
    return finished


@dataclass
class Training:
    """A run of VTok before its next step.

    Attributes:
        config: Its configuration.
        run: The run as the loop sees it.
        dataset: Its samples.
        validation: Validates it on held-out clips, if there are any.
        utilisation: Measures the utilisation of the devices; only on rank 0.
    """

    config: RunConfig
    run: Run
    dataset: ClipDataset
    validation: Validation | None
    utilisation: Utilisation | None

    def take_step(self, batches: Iterator[Loaded], number: int) -> Step:
        """Takes one optimiser step."""
        engine, consumed = self.run.players[0].engine, self.run.state.consumed_samples
        step = train_step(engine, batches, self.run.plan, self.config.model.loss.with_decoder(number))
        if self.utilisation:
            order, batch = self.dataset.order, self.run.plan.global_batch_size
            known = isinstance(order, BucketedOrder)
            cost = float(order.costs(range(consumed, consumed + batch)).mean()) if known else None
            step.figures.update(self.utilisation.at(step.figures["samples_per_s"], cost))
        return step

    def judge(self, number: int, metrics: Metrics | None) -> None:
        """Validates, if it is due: the average of the weights if the run keeps one, else the weights."""
        if self.validation is None or not self.validation.due(number, self.run.max_steps):
            return
        player = self.run.players[0]
        with player.ema.applied() if player.ema else nullcontext():
            judged = self.validation.run(player.engine.module)
        if metrics:
            metrics.validation(number, *judged)


def prepare(arguments: RunArguments[RunConfig], output: Path) -> Training:
    """Prepares a run up to its first step, or resumes it up to its next.

    If it raises, it has written nothing except data and tiny models that the run makes for itself.

    Raises:
        ConfigError: A setting, the weights or the checkpoint are wrong.
        DataError: The data are wrong.
    """
    config = arguments.config
    shared_by = config.train.sequence_parallel
    plan, ds_config = settle(config.train, arguments.ds_config, bool(config.data.buckets), shared_by)
    reader, held_out = open_data(config, output)
    require(
        bool(held_out) or config.checkpoint.keep != "best",
        "checkpoint.keep best needs a held-out split: pass --validation.shards DIR, or set checkpoint.keep to a number",
    )
    found = resumed_from(output, arguments.step) if arguments.resume else None
    start = load_model(config, output, ds_config, reader, held_out, found)
    framework = start.framework
    if shared_by > 1 and framework.decoder is not None:
        framework.decoder.share(distributed.sequence_group(shared_by))
    earlier = load_config(output / "config.yaml").data.buckets if found and config.data.buckets == "auto" else None
    distributed.every_rank(
        lambda: settle_buckets(config, reader, framework, earlier if isinstance(earlier, list) else None)
    )
    if distributed.rank() == 0 and config.data.buckets:
        print(f"buckets: {', '.join(config.data.buckets)}", flush=True)
    dataset = build_dataset(config, reader, framework, training=True)
    validation = Validation(config, held_out, framework) if held_out else None
    loaders = 2 if validation else 1
    distributed.every_rank(lambda: in_flight.require_room(dataset, plan.micro_batch_size, config.data.workers, loaders))

    order = order_settings(config, dataset.bucketing)
    state = checkpoint.fresh_state(config.seed, reader.manifest_hash, plan.ranks, framework, start.frozen, order)
    if found:
        state = checkpoint.check(found, state, reader.earlier_hashes(), config.data.allow_growth)
        if distributed.rank() == 0 and state.grown:
            print(growth_line(state.grown, len(reader)), flush=True)
    if config.train.compile:
        compile_blocks(framework)
    engine = build_engine(framework, ds_config, config.train)
    ema = Ema(engine, config.train.ema_decay, config.train.ema_warmup) if config.train.ema_decay is not None else None
    player = Player(engine, state, Writer(output, config.checkpoint, engine, ema), ema)

    def at_step_0() -> None:
        kept.write(output, engine.module, start.only_here)
        if start.statistics:
            initial.set_statistics(engine.module, start.statistics)
        else:
            calibrate(config, player, dataset, plan)

    run = begin(config, [output], [found] if found else [], plan, [player], len(reader), at_step_0)
    state.kept = distributed.rank_zero_first(lambda: kept.mark(output))
    utilisation = None
    if distributed.rank() == 0:
        captions = models.dataset_texts(reader, most=50, names=["caption"])
        utilisation = Utilisation(config, framework, plan.ranks, captions)
    return Training(config, run, dataset, validation, utilisation)


def resumed_from(output: Path, step: int | None) -> Path | None:
    """Returns the checkpoint that a run goes on from: the newest undamaged one, or that of a step.

    Raises:
        ConfigError: There is none of that step, or all are damaged.
    """
    found = distributed.rank_zero_first(lambda: choosing.candidates(output, step))
    return choosing.first_sound([[folder] for folder in found])[0] if found else None


def open_data(config: RunConfig, output: Path) -> tuple[ShardReader | Mixture, list[HeldOut]]:
    """Opens the run's data and its held-out splits. Packs the demo's clips or raw clips first."""
    shards = distributed.rank_zero_first(lambda: find_shards(config, output))
    held_out = distributed.rank_zero_first(lambda: find_held_out(config, shards))
    reader = open_shards(config, shards)
    if distributed.rank() == 0 and isinstance(reader, Mixture):
        print("\n".join(mixture_lines(config.data.sources, reader)), flush=True)
    return reader, open_held_out(config, reader, held_out)


class Start(NamedTuple):
    """A run's model before its first step, or before it goes on.

    Attributes:
        framework: The framework at step 0.
        frozen: Hashes of the weights of its frozen parts.
        statistics: The features' statistics, if a trained VTok gives them.
        only_here: Names of the frozen parameters that the run must keep.
    """

    framework: VTokFramework
    frozen: dict[str, str]
    statistics: dict[str, Tensor]
    only_here: list[str]


def load_model(
    config: RunConfig,
    output: Path,
    ds_config: dict,
    reader: ShardReader | Mixture,
    held_out: list[HeldOut],
    found: Path | None,
) -> Start:
    """Loads the framework at step 0. Writes its tiny models first, if the run uses them.

    Args:
        config: Configuration of the run.
        output: Folder of the run.
        ds_config: DeepSpeed's configuration.
        reader: The run's data.
        held_out: Its held-out splits.
        found: The checkpoint that the run goes on from, if any. Then its frozen weights are those that it has kept.
    """
    if distributed.rank() == 0 and not found:
        print(f"starting from {origin(config)}", flush=True)
    if config.tiny_models:
        texts = models.dataset_texts(reader)
        distributed.rank_zero_first(lambda: models.prepare_tiny_models(config, output, texts))
        models.point_to_tiny_models(config)
    bits = min([lora.bits for lora in (config.model.mllm.lora, config.model.decoder.lora) if lora], default=16)
    require(
        bits == 16 or ds_config["zero_optimization"]["stage"] == 2,
        f"lora.bits {bits} needs ZeRO-2: pass --ds_config deepspeed_configs/zero2.json",
    )
    unused = precomputed.unused_encoders(config, reader, [split.reader for split in held_out])
    place = weights.placement(ds_config, precision(config.train))
    empty = distributed.every_rank(lambda: models.assembled(config, output))
    frozen = weights.frozen_hashes(empty)

    def filled() -> Start:
        if found:
            with kept.opened(output, found) as stored:
                return Start(models.with_weights(config, empty, place, unused, models.readers(stored)), frozen, {}, [])
        with initial.opened(config.init, empty) as (stored, statistics):
            only_here = kept.only_here(empty, stored)
            require(
                bits == 16 or not any(map(is_base, only_here)),
                f"init.weights: with lora.bits {bits} the language model must be that of model.mllm.weights: export "
                f"{config.init.weights} (--merge, if it has adapters) and name the export in both",
            )
            framework = models.with_weights(config, empty, place, unused, models.readers(stored))
            return Start(framework, frozen, statistics, only_here)

    return distributed.every_rank(filled)


def calibrate(config: RunConfig, player: Player, dataset: ClipDataset, plan: BatchPlan) -> None:
    """Measures mean and standard deviation of the frozen features over the run's first batches."""
    end = config.train.calibration_batches * plan.global_batch_size
    batches = micro_batches(dataset, plan, config.data.workers, end=end, patience=config.train.sample_seconds)
    calibration.calibrate(player.engine.module, batches, player.engine.device)
