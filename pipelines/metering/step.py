"""Measures one training step of the real framework at full depth, on the meta device."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from pipelines.metering.meter import Meter, Usage
from pipelines.metering.workload import Lengths, Workload
from vtok.assembly.architectures import meta_framework
from vtok.config import ModelConfig
from vtok.framework import VTokFramework
from vtok.parts import train_only
from vtok.sequence import SequenceGroup
from vtok.weights.precision import cast_parameters

META = torch.device("meta")

# The frozen encoders have no backward.
ENCODERS = ("feature_extractor", "autoencoder", "text_encoder")

# The parts that run only in steps with L_dec.
DECODER_PARTS = ("autoencoder", "text_encoder", "diffusion_transformer")


@dataclass
class Step:
    """Figures of one micro-step.

    Attributes:
        usage: Usage by phase: the name of a part for its forward, with " backward" for its backward.
        kept: Bytes that autograd saved: live between forward and backward, without the batch.
        tiled: Whether the autoencoder tiled the frames.
    """

    usage: dict[str, Usage]
    kept: int
    tiled: bool

    @property
    def peak(self) -> int:
        """The peak of live bytes in the step."""
        return max(usage.peak for usage in self.usage.values())


def measure_step(framework: VTokFramework, load: Workload) -> Step:
    """Measures one micro-step of ``framework``, which lies on the meta device in the run's dtype."""
    framework.text = Lengths(load.crop_start)
    meter = Meter()
    with gradients_dropped(framework), torch_linear(), meter:
        batch = load.batch(partial(torch.empty, device=META))
        given = meter.live
        loss = framework(batch)["loss"]
        kept = meter.live - given
        loss.backward()
    usage = {phase: used for phase, used in meter.usage.items() if phase}
    vae = getattr(framework.decoder, "vae", None)
    return Step(usage, kept, tiled=getattr(vae, "use_tiling", False))


@contextmanager
def torch_linear() -> Iterator[None]:
    """Puts torch's linear function back, in whose place ZeRO-3 sets its own for the whole process.

    ZeRO-3's runs its forward without gradients, as only a backward does otherwise. So the meter could not tell a
    forward that checkpointing repeats.
    """
    swapped, F.linear = F.linear, torch._C._nn.linear
    try:
        yield
    finally:
        F.linear = swapped


def meta_copy(
    model: ModelConfig, precision: str, parts: Mapping[str, float] | None = None, sequence_parallel: int = 1
) -> VTokFramework:
    """Builds a framework without storage, in training mode.

    Args:
        model: Its settings.
        precision: ``train.precision``. ``auto`` is bf16, as on GPUs.
        parts: ``train.parts``.
        sequence_parallel: Number of ranks that share each sample. The copy computes the part of the first one, which
            has the most rows.

    Raises:
        ConfigError: They do not divide the attention heads of the decoder's transformer.
    """
    framework = meta_framework(model).train()
    train_only(framework, framework.learnable, parts)
    if sequence_parallel > 1 and framework.decoder is not None:
        framework.decoder.share(SequenceGroup(sequence_parallel, 0, None))
    cast_parameters(framework, torch.float32 if precision == "fp32" else torch.bfloat16)
    return framework


@contextmanager
def gradients_dropped(framework: VTokFramework) -> Iterator[None]:
    """Drops each parameter's gradient as soon as it is complete. ZeRO reduces and shards it then."""
    trainable = [p for p in framework.parameters() if p.requires_grad]
    hooks = [p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None)) for p in trainable]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
