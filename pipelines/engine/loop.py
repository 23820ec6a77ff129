"""The training loop of VTok and VidTok. It logs every step, and saves and validates when due.

The loop ends after the last step, or after the first step that follows a request to stop.
"""

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from pipelines.cli.config_files import plain
from pipelines.config import CheckpointConfig, OptimisationConfig, Trackers
from pipelines.engine import distributed, internals, roll_call, waiting
from pipelines.engine.batch_plan import BatchPlan
from pipelines.engine.finite import DroppedSteps
from pipelines.engine.loading.bad_samples import BadSamples
from pipelines.engine.loading.loader import Loaded
from pipelines.engine.run_control import Stopper
from pipelines.engine.saving.checkpoint import RunState
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.rotation import losses
from pipelines.engine.saving.writing import Writer
from pipelines.engine.setup import Engine, learning_rates, set_learning_rates
from pipelines.engine.stepping import Step
from pipelines.engine.watching.metrics import Metrics
from pipelines.engine.watching.profiler import profiled
from pipelines.engine.watching.slow_ranks import SlowRanks
from pipelines.engine.watching.trackers import flat, open_trackers

# Seconds for which the last checkpoint waits for room on a full disk. At a stop a scheduler soon kills the run.
AT_STOP, AT_END = 120.0, 1800.0


class DataSettings(Protocol):
    max_bad_share: float


class Settings(Protocol):
    """The part of a run's configuration that the loop reads."""

    track: list[Trackers]
    train: OptimisationConfig
    checkpoint: CheckpointConfig
    data: DataSettings


@dataclass
class Player:
    """A module in training.

    Attributes:
        engine: Its DeepSpeed engine.
        state: Its step, samples and updates so far.
        writer: Writes its checkpoints.
        ema: Average of its weights, if the run keeps one.
    """

    engine: Engine
    state: RunState
    writer: Writer
    ema: Ema | None = None

    def count(self, step: int, samples: int, applied: bool) -> None:
        """Counts a step.

        Args:
            step: Number of the step.
            samples: Samples of the step.
            applied: Whether the step changed the weights.
        """
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
        players: The modules that it trains. The state of the first one gives the next step.
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
) -> bool:
    """Trains up to ``run.max_steps``, or until a request to stop. All ranks call this.

    Args:
        run: The run. Its state is updated after each step.
        batches: Micro-batches on the device, starting with the next step's.
        take_step: Takes the step with the given number, from the next micro-batches.
        stopper: Tells whether any rank was asked to stop.
        profile: Steps to trace.
        after_save: Called when the writing of a checkpoint has started.
        judge: Called after each step, except one at which a request stops the run. Such a step's call is made up for
            at the next start. It gets the number of the step, and on rank 0 the metrics.

    Returns:
        Whether all steps were taken and judged.

    Raises:
        Unsaved: The disk does not take the run's checkpoints (see :mod:`pipelines.engine.saving.writing`).
    """
    config, own = run.config, run.players[0]
    roll_call.keep_record(run.output)
    slow = SlowRanks([host for (host,) in distributed.gather_lists([socket.gethostname()])])
    metrics = distributed.every_rank(lambda: metrics_of(run) if distributed.rank() == 0 else None)
    bad = BadSamples(run.output, config.data.max_bad_share, own.state.step)
    dropped = DroppedSteps(config.train.max_nonfinite_steps)
    stop = False
    judged = distributed.rank_zero_first(lambda: losses(run.output / "validation.jsonl"))
    if own.state.step and own.state.step not in judged:  # an earlier start was stopped before it
        judge(own.state.step, metrics)

    for number in profiled(range(own.state.step + 1, run.max_steps + 1), profile, run.output):
        roll_call.doing(f"in step {number}")
        rates = learning_rates(own.state.updates + 1, config.train, run.max_steps)
        for player in run.players:
            set_learning_rates(player.engine, rates)
        with waiting.measured():
            step = take_step(batches, number)
        # Not before the first step, which is slow: it compiles kernels and fills the loaders.
        internals.set_timeout(timedelta(minutes=config.train.timeout_minutes))

        for player, applied in zip(run.players, step.applied):
            player.count(number, run.plan.global_batch_size, bool(applied))
        figures = step.figures | {
            **{f"lr/{entry}" if entry else "lr": rate for entry, rate in rates.items()},
            "ema_distance": own.ema.distance() if own.ema else None,
            "skipped": number - own.state.updates,
            "bad_samples": bad.record(number, step.replaced),
        }
        stop = stopper.requested()
        for player in run.players:
            player.writer.rotates = False not in step.applied
            player.writer.poll()
        figures["checkpoint_stall"] = 0.0
        if stop or number % config.checkpoint.every == 0 or number == run.max_steps:
            roll_call.doing(phase="saving")
            started = time.perf_counter()
            for player in run.players:
                player.writer.save(replace(player.state))
            after_save()
            figures["checkpoint_stall"] = time.perf_counter() - started
        if metrics:
            metrics.write({"step": number} | figures)
            metrics.say(slow.check(figures.get("rank_s", []), run.plan.global_batch_size / figures["samples_per_s"]))
            metrics.cut_texts(figures["cut_texts"])
        bad.check(own.state.consumed_samples)
        dropped.check(step.keys if False in step.applied else [])
        if stop:
            break
        roll_call.doing(phase="validating")
        judge(number, metrics)

    roll_call.doing("after the last step")
    internals.set_timeout(distributed.ALONE_TIMEOUT)  # gives the slowest rank time to write
    for player in run.players:
        player.writer.finish(AT_STOP if stop else AT_END)
    if metrics:
        metrics.close()
    return not stop


def metrics_of(run: Run) -> Metrics:
    """Opens a run's logs and trackers; raises ConfigError if a tracker cannot be started."""
    trackers = open_trackers(run.config.track, run.output, run.state.step, flat(plain(asdict(run.config))))
    return Metrics(run.output, run.state.step, run.max_steps, trackers)
