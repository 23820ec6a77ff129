"""Predicts memory, time, cost and traffic of a configuration on a number of GPUs."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.config import CAPTION_TOKENS, STORED, RunConfig
from pipelines.engine.batch_plan import BatchPlan, data_ranks, plan_batch, smallest_valid_batch
from pipelines.metering.flops import Flops, part_flops
from pipelines.metering.step import Step, measure_step, meta_copy
from pipelines.metering.workload import Workload, typical_workload
from pipelines.planning.hardware import Hardware
from pipelines.planning.host import host_memory
from pipelines.planning.memory import Share, kept_memory, parameters_of, phase_memory
from pipelines.planning.network import Received, waiting_seconds
from pipelines.planning.rates import Rates
from pipelines.planning.sharding import read_sharding
from pipelines.planning.time import Seconds, micro_step_seconds
from pipelines.planning.traffic import exchanged, traffic
from vtok.config import ModelConfig
from vtok.framework import VTokFramework
from vtok.rows.text import TextEncoder
from vtok.weights.shipped import folder_of


@dataclass
class Scenario:
    """The input of a plan. Each suggestion is another scenario.

    Attributes:
        stored: What the shards hold, of ``STORED``. The encoders of it are neither loaded nor run.
    """

    config: RunConfig
    ds_config: Path
    hardware: Hardware
    caption_tokens: int = CAPTION_TOKENS
    rates: Rates = field(default_factory=Rates)
    stored: Collection[str] = ()


@dataclass
class Forecast:
    """The needs of a scenario. Bytes are per GPU; ``host_bytes`` are per node.

    Attributes:
        hardware: The machines.
        parameters: Number of parameters, by part.
        trained: How many of these train.
        batch: How the batch is divided among ranks and accumulation steps.
        steps: Optimiser steps of the run, or ``None`` if its length is given in epochs.
        kept: Memory that is held all the time.
        host: Other host memory of each rank.
        saved: Bytes that autograd saves in a micro-step; ``phases`` includes them.
        phases: Temporary GPU memory, by phase.
        flops: FLOPs per sample, by part.
        rates: The speeds that times are computed from.
        seconds: Seconds per micro-step, by phase.
        traffic: Bytes that a GPU receives per step, by purpose.
        waiting: Seconds per step in which a GPU waits for these.
        tiled: Whether the autoencoder tiles frames.
    """

    hardware: Hardware
    parameters: dict[str, int]
    trained: dict[str, int]
    batch: BatchPlan
    steps: int | None
    kept: list[Share]
    host: list[Share]
    saved: int
    phases: dict[str, int]
    flops: dict[str, Flops]
    rates: Rates
    seconds: dict[str, Seconds]
    traffic: dict[str, Received]
    waiting: float
    tiled: bool

    @property
    def gpu_bytes(self) -> int:
        held = sum(share.bytes for share in self.kept if not share.on_host)
        return held + max(self.phases.values()) + round(self.hardware.reserve * 1e9)

    @property
    def host_shares(self) -> list[Share]:
        """All host memory of a rank, by part."""
        return [share for share in self.kept if share.on_host] + self.host

    @property
    def host_bytes(self) -> int:
        return self.hardware.ranks_per_node * sum(share.bytes for share in self.host_shares)

    @property
    def fits_host(self) -> bool:
        return self.host_bytes <= self.hardware.node_memory * 1e9

    @property
    def fits(self) -> bool:
        return self.gpu_bytes <= self.hardware.gpu_memory * 1e9

    @property
    def step_seconds(self) -> float:
        return self.batch.accumulation * sum(phase.total for phase in self.seconds.values()) + self.waiting

    @property
    def run_days(self) -> float | None:
        return self.steps and self.steps * self.step_seconds / 86400

    @property
    def run_cost(self) -> float | None:
        return self.steps and self.run_days * 24 * self.hardware.gpus * self.hardware.price


def forecast(scenario: Scenario) -> Forecast:
    """Plans a scenario.

    If the global batch is not divisible by the number of GPUs, the next one that is gets planned, with fewer steps for
    the same number of samples.

    Raises:
        ConfigError: ``train.sequence_parallel`` does not divide the GPUs, or the attention heads.
    """
    train, hardware = scenario.config.train, scenario.hardware
    parameter_bytes = 4 if train.precision == "fp32" else 2
    sharding = read_sharding(scenario.ds_config, parameter_bytes, hardware.ranks_per_node)
    shared_by = train.sequence_parallel
    samples = smallest_valid_batch(train.global_batch_size, data_ranks(hardware.gpus, shared_by))
    even = bool(scenario.config.data.buckets)
    batch = plan_batch(samples, train.micro_batch_size, hardware.gpus, even, shared_by)
    framework = whole_model(scenario.config)
    absent = {STORED[kind] for kind in scenario.stored}
    parameters = [parameter for parameter in parameters_of(framework) if parameter.part not in absent]
    load = typical_workload(
        scenario.config, framework, batch.micro_batch_size, scenario.caption_tokens, local_text(scenario.config.model)
    )
    dec_every = scenario.config.model.loss.dec_every
    whole, step = (without(measured(scenario, load, ranks), absent) for ranks in (1, shared_by))
    seconds = micro_step_seconds(step, scenario.rates, dec_every)
    per_node = hardware.ranks_per_node
    moved = traffic(parameters, hardware.gpus, batch.accumulation, sharding, per_node)
    moved |= exchanged(framework, load, batch, parameter_bytes, per_node, encodes="autoencoder" not in absent)
    return Forecast(
        hardware=hardware,
        parameters={part: n for part, n in framework.parameter_counts().items() if part not in absent},
        trained=framework.parameter_counts(trained_only=True),
        batch=batch,
        steps=train.max_steps and -(-train.max_steps * train.global_batch_size // samples),
        kept=kept_memory(parameters, hardware.gpus, sharding, ema=train.ema_decay is not None),
        host=host_memory(parameters, hardware.gpus, scenario.config, load),
        saved=step.kept,
        phases=phase_memory(parameters, step, hardware.gpus, sharding),
        flops=part_flops(whole, batch.micro_batch_size, dec_every),
        rates=scenario.rates,
        seconds=seconds,
        traffic=moved,
        waiting=waiting_seconds(moved, seconds, batch.accumulation, hardware),
        tiled=step.tiled,
    )


def sharing_choices(config: RunConfig) -> list[int]:
    """Lists the values of ``train.sequence_parallel`` that divide the attention heads of the decoder's transformer."""
    decoder = whole_model(config).decoder
    return decoder.possible_sharing if decoder is not None else [1]


# Suggestions try many scenarios that share few models and steps. Building or measuring one takes seconds.
_models: dict[str, VTokFramework] = {}
_steps: dict[str, Step] = {}


def whole_model(config: RunConfig) -> VTokFramework:
    """Returns the run's framework on the meta device. Nobody may change it."""
    model, train = config.model, config.train
    key = repr((model, train.precision, train.parts))
    if key not in _models:
        _models[key] = meta_copy(model, train.precision, train.parts)
    return _models[key]


def measured(scenario: Scenario, load: Workload, ranks: int) -> Step:
    """Measures a micro-step of one of ``ranks`` ranks that share its samples."""
    model, train = scenario.config.model, scenario.config.train
    key = repr((model, train.precision, train.parts, load, ranks))
    if key not in _steps:
        _steps[key] = measure_step(meta_copy(model, train.precision, train.parts, ranks), load)
    return _steps[key]


def without(step: Step, parts: Collection[str]) -> Step:
    """Returns a step in which some parts do not run."""
    return replace(step, usage={phase: usage for phase, usage in step.usage.items() if phase not in parts})


def local_text(model: ModelConfig) -> TextEncoder | None:
    """Loads the tokenizers if they lie in a folder. A plan downloads nothing."""
    return TextEncoder.from_pretrained(model) if folder_of(model.mllm.weights) else None
