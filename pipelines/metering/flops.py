"""FLOPs of a training sample, by part: counted on the real modules, on the meta device, before the run begins.

A frozen part that gradients pass through (the diffusion transformer) has the gradients of its activations and none of
its weights; a part that they do not reach has a forward only. :mod:`pipelines.metering.meter` says what is counted.
"""

from typing import NamedTuple

from pipelines.config import CAPTION_TOKENS, RunConfig
from pipelines.metering.meter import BACKWARD
from pipelines.metering.step import DECODER_PARTS, Step, measure_step, meta_copy
from pipelines.metering.workload import typical_workload
from vtok.framework import VTokFramework


class Flops(NamedTuple):
    """FLOPs of one sample: those the mathematics needs, and those the hardware executes.

    Attributes:
        model: forward and backward once.
        hardware: with the forwards that activation checkpointing repeats.
    """

    model: float
    hardware: float


def sample_flops(config: RunConfig, framework: VTokFramework, caption_tokens: int = CAPTION_TOKENS) -> dict[str, Flops]:
    """FLOPs of a full-length clip with a caption of typical length, by part; the decoder's averaged over the steps.

    Encoders without weights are left out: they never run, as all batches bring what they give.

    Args:
        framework: the run's, which may be sharded: it is only asked for its configuration and tokenizers. Counting is
            done on a copy without storage.
    """
    copy = meta_copy(framework.config, config.train.precision)
    load = typical_workload(config, copy, 1, caption_tokens, framework.text)
    flops = part_flops(measure_step(copy, load), 1, config.model.loss.dec_every)
    idle = {name for name, part in framework.frozen_parts.items() if next(part.parameters(), None) is None}
    return {name: part for name, part in flops.items() if name not in idle}


def part_flops(step: Step, samples: int, dec_every: int) -> dict[str, Flops]:
    """FLOPs of one sample of a measured micro-step, forward and backward of a part taken together."""
    totals: dict[str, Flops] = {}
    for phase, usage in step.usage.items():
        part = phase.removesuffix(BACKWARD)
        model, hardware = totals.get(part, Flops(0, 0))
        shared_by = samples * (dec_every if part in DECODER_PARTS else 1)
        executed, repeated = usage.flops / shared_by, usage.recomputed / shared_by
        totals[part] = Flops(model + executed - repeated, hardware + executed)
    return totals
