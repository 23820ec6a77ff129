"""The training loop of VTok and VidTok: optimiser steps, each one logged, saved and judged.

It ends after the last step, or at the first step after a request to stop.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from pipelines.config import CheckpointConfig, OptimisationConfig
from pipelines.engine import distributed, internals
from pipelines.engine.batch_plan import BatchPlan
from pipelines.engine.finite import DroppedSteps
from pipelines.engine.loading.bad_samples import BadSamples
from pipelines.engine.loading.loader import Loaded
from pipelines.engine.run_control import Stopper
from pipelines.engine.saving.checkpoint import RunState
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.writing import Writer
from pipelines.engine.setup import Engine, learning_rate, set_learning_rate
from pipelines.engine.stepping import Step
from pipelines.engine.watching.metrics import Metrics
from pipelines.engine.watching.profiler import profiled


class DataSettings(Protocol):
    max_bad_share: float


class Settings(Protocol):
    """What the loop reads of a run's configuration."""

    train: OptimisationConfig
    checkpoint: CheckpointConfig
    data: DataSettings


@dataclass
class Player:
    """A module in training.

    Attributes:
        engine: Its DeepSpeed engine.
        state: Where it stands.
        writer: Writes its checkpoints.
        ema: Average of its weights, if the run keeps one.
    """

    engine: Engine
    state: RunState
    writer: Writer
    ema: Ema | None = None

    def count(self, step: int, samples: int, applied: bool) -> None:
        """Note a step of ``samples`` samples, which may have changed the weights."""
        self.state.step = step
        self.state.consumed_samples += samples
        self.state.updates += applied
        if self.ema and applied:
            self.ema.update(self.state.updates)


@dataclass
class Run:
    """A run before its next step.

    Attributes:
        config: Its settings.
        output: Its folder.
        plan: Sizes of the batch.
        players: What it trains. The state of the first one says which step is next.
        max_steps: Number of its last step.
    """

    config: Settings
    output: Path
    plan: BatchPlan
    players: list[Player]
    max_steps: int

    @property
    def state(self) -> RunState:
        return self.players[0].state

    @property
    def finished(self) -> bool:
        return self.state.step >= self.max_steps


def run_steps(
    run: Run,
    batches: Iterator[Loaded],
    take_step: Callable[[Iterator[Loaded], int], Step],
    stopper: Stopper,
    profile: range | None = None,
    after_save: Callable[[], None] = lambda: None,
    judge: Callable[[int, Metrics | None], None] = lambda number, metrics: None,
) -> None:
    """Train up to ``run.max_steps``, or up to a request to stop. All ranks call this.

    Args:
        run: The run, which these steps move on.
        batches: Micro-batches on the device, from the next step's on.
        take_step: Trains with the micro-batches of the step of this number.
        stopper: Says whether any rank was asked to stop.
        profile: Steps to trace.
        after_save: Called when a checkpoint is on its way.
        judge: Called after each step but one that stops the run; gets the step's number, and the metrics on rank 0.
    """
    config, own = run.config, run.players[0]
    metrics = Metrics(run.output, own.state.step, run.max_steps) if distributed.rank() == 0 else None
    bad = BadSamples(run.output, config.data.max_bad_share, own.state.step)
    dropped = DroppedSteps(config.train.max_nonfinite_steps)

    for number in profiled(range(own.state.step + 1, run.max_steps + 1), profile, run.output):
        lr = learning_rate(own.state.updates + 1, config.train, run.max_steps)
        for player in run.players:
            set_learning_rate(player.engine, lr)
        step = take_step(batches, number)
        # Only now: the first step is slow, since kernels are compiled and loaders filled.
        internals.set_timeout(timedelta(minutes=config.train.timeout_minutes))

        for player, applied in zip(run.players, step.applied):
            player.count(number, run.plan.global_batch_size, bool(applied))
        figures = step.figures | {
            "lr": lr,
            "ema_distance": own.ema.distance() if own.ema else None,
            "skipped": number - own.state.updates,
            "bad_samples": bad.record(number, step.replaced),
        }
        stop = stopper.requested()
        for player in run.players:
            player.writer.poll()
        figures["checkpoint_stall"] = 0.0
        if stop or number % config.checkpoint.every == 0 or number == run.max_steps:
            started = time.perf_counter()
            for player in run.players:
                player.writer.save(replace(player.state))
            after_save()
            figures["checkpoint_stall"] = time.perf_counter() - started
        if metrics:
            metrics.write({"step": number} | figures)
        bad.check(own.state.consumed_samples)
        dropped.check(step.keys if False in step.applied else [])
        if stop:
            break
        judge(number, metrics)

    internals.set_timeout(distributed.ALONE_TIMEOUT)  # leaves time for the slowest rank to write
    for player in run.players:
        player.writer.wait()
    if metrics:
        metrics.close()
