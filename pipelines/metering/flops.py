"""Counts the FLOPs of a training sample, by part, on the real modules on the meta device, before the run starts.

Gradients pass through the frozen diffusion transformer: it computes gradients of activations, not of weights. A part
that gradients do not reach has a forward only. :mod:`pipelines.metering.meter` says what is counted.
"""

from typing import NamedTuple

from pipelines.config import CAPTION_TOKENS, RunConfig
from pipelines.metering.meter import BACKWARD
from pipelines.metering.step import DECODER_PARTS, Step, measure_step, meta_copy
from pipelines.metering.workload import typical_workload
from vtok.framework import VTokFramework


class Flops(NamedTuple):
    """FLOPs of one sample.

    Attributes:
        model: One forward and backward.
        hardware: These, and the forwards that activation checkpointing repeats.
    """

    model: float
    hardware: float


def sample_flops(config: RunConfig, framework: VTokFramework, caption_tokens: int = CAPTION_TOKENS) -> dict[str, Flops]:
    """Counts the FLOPs of a full-length clip with a typical caption, by part. The decoder's are averaged over steps.

    Encoders without weights are left out: they never run, since their outputs are stored.

    Args:
        config: The run's configuration.
        framework: The run's framework, which may be sharded. Only its configuration and tokenizers are used; a copy
            without storage runs.
        caption_tokens: Tokens of the caption.
    """
    copy = meta_copy(framework.config, config.train.precision, config.train.parts)
    load = typical_workload(config, copy, 1, caption_tokens, framework.text)
    flops = part_flops(measure_step(copy, load), 1, config.model.loss.dec_every)
    idle = {name for name, part in framework.frozen_parts.items() if next(part.parameters(), None) is None}
    return {name: part for name, part in flops.items() if name not in idle}


def part_flops(step: Step, samples: int, dec_every: int) -> dict[str, Flops]:
    """Returns the FLOPs per sample of a measured micro-step. Forward and backward of a part are one entry."""
    totals: dict[str, Flops] = {}
    for phase, usage in step.usage.items():
        part = phase.removesuffix(BACKWARD)
        model, hardware = totals.get(part, Flops(0, 0))
        shared_by = samples * (dec_every if part in DECODER_PARTS else 1)
        executed, repeated = usage.flops / shared_by, usage.recomputed / shared_by
        totals[part] = Flops(model + executed - repeated, hardware + executed)
    return totals
