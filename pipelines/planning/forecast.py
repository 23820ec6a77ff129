"""Memory, time, cost and traffic of a configuration on so many GPUs."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.config import RunConfig
from pipelines.engine.batch_plan import BatchPlan, plan_batch, smallest_valid_batch
from pipelines.engine.watching.flops import Flops, part_flops
from pipelines.planning.memory import Share, kept_memory, parameters_of, phase_memory
from pipelines.planning.sharding import read_sharding
from pipelines.planning.step import Step, measure_step, meta_copy
from pipelines.planning.traffic import traffic
from pipelines.planning.workload import CAPTION_TOKENS, typical_workload
from vtok.config import ModelConfig
from vtok.framework import VTokFramework
from vtok.text import TextEncoder


@dataclass(frozen=True)
class Hardware:
    """GPUs, and what is assumed of them.

    Attributes:
        gpus, gpus_per_node: their number.
        gpu_memory: GB (1e9 bytes) of each.
        reserve: GB of it that the CUDA context, NCCL and the allocator's gaps take.
        tflops: peak of dense bf16 products of one, in TFLOP/s.
        utilisation: share of the peak that a step reaches, recomputation counted.
        price: of a GPU for an hour.
    """

    gpus: int = 8
    gpus_per_node: int = 8
    gpu_memory: float = 80.0
    reserve: float = 6.0
    tflops: float = 989.0
    utilisation: float = 0.4
    price: float = 2.5

    @property
    def ranks_per_node(self) -> int:
        return min(self.gpus, self.gpus_per_node)


@dataclass
class Scenario:
    """What is planned; a suggestion is another one."""

    config: RunConfig
    ds_config: Path
    hardware: Hardware
    caption_tokens: int = CAPTION_TOKENS


@dataclass
class Forecast:
    """What a scenario amounts to; bytes are a GPU's, or a node's where the host is meant.

    Attributes:
        parameters: numbers of them, by part.
        batch: as it is dealt out.
        steps: optimiser steps of the run, or ``None`` where it is given in epochs.
        kept: what is held all the time.
        saved: what autograd saves of a micro-step, part of what comes and goes.
        phases: what comes and goes on the GPU, by phase.
        flops: of a sample, by part.
        traffic: received by a GPU in a step, by purpose.
    """

    hardware: Hardware
    parameters: dict[str, int]
    batch: BatchPlan
    steps: int | None
    kept: list[Share]
    saved: int
    phases: dict[str, int]
    flops: dict[str, Flops]
    traffic: dict[str, int]

    @property
    def gpu_bytes(self) -> int:
        held = sum(share.bytes for share in self.kept if not share.on_host)
        return held + max(self.phases.values()) + round(self.hardware.reserve * 1e9)

    @property
    def host_bytes(self) -> int:
        return self.hardware.ranks_per_node * sum(share.bytes for share in self.kept if share.on_host)

    @property
    def fits(self) -> bool:
        return self.gpu_bytes <= self.hardware.gpu_memory * 1e9

    @property
    def step_seconds(self) -> float:
        flops = sum(part.hardware for part in self.flops.values()) * self.batch.global_batch_size
        return flops / (self.hardware.gpus * self.hardware.tflops * 1e12 * self.hardware.utilisation)

    @property
    def run_days(self) -> float | None:
        return self.steps and self.steps * self.step_seconds / 86400

    @property
    def run_cost(self) -> float | None:
        return self.steps and self.run_days * 24 * self.hardware.gpus * self.hardware.price


def forecast(scenario: Scenario) -> Forecast:
    """Plan a scenario.

    A global batch that the GPUs do not divide is raised to the next that they do, with fewer steps for as many samples.
    """
    train, hardware = scenario.config.train, scenario.hardware
    parameter_bytes = 4 if train.precision == "fp32" else 2
    sharding = read_sharding(scenario.ds_config, parameter_bytes, hardware.ranks_per_node)
    samples = smallest_valid_batch(train.global_batch_size, hardware.gpus)
    batch = plan_batch(samples, train.micro_batch_size, hardware.gpus)
    framework = meta_copy(scenario.config.model, train.precision)
    parameters = parameters_of(framework)
    step = measured(scenario, framework, batch.micro_batch_size)
    return Forecast(
        hardware,
        framework.parameter_counts(),
        batch,
        train.max_steps and -(-train.max_steps * train.global_batch_size // samples),
        kept_memory(parameters, hardware.gpus, sharding, ema=train.ema_decay is not None),
        step.kept,
        phase_memory(parameters, step, hardware.gpus, sharding),
        part_flops(step, batch.micro_batch_size, scenario.config.model.loss.dec_every),
        traffic(parameters, hardware.gpus, batch.accumulation, sharding),
    )


# Suggestions try many scenarios with few different steps, and measuring one takes seconds.
_steps: dict[str, Step] = {}


def measured(scenario: Scenario, framework: VTokFramework, micro_batch_size: int) -> Step:
    config = scenario.config
    key = repr((config.model, config.data, config.train.precision, micro_batch_size, scenario.caption_tokens))
    if key not in _steps:
        load = typical_workload(config, framework, micro_batch_size, scenario.caption_tokens, local_text(config.model))
        _steps[key] = measure_step(framework, load)
    return _steps[key]


def local_text(model: ModelConfig) -> TextEncoder | None:
    """The tokenizers, where they lie in a folder: a plan downloads nothing."""
    return TextEncoder.from_pretrained(model) if Path(model.mllm.weights).is_dir() else None
