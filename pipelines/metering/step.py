"""One training step of the real framework on the meta device, under the meter, at full depth."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from pipelines.metering.meter import Meter, Usage
from pipelines.metering.workload import Lengths, Workload
from vtok.assembly.architectures import meta_framework
from vtok.config import ModelConfig
from vtok.framework import VTokFramework

META = torch.device("meta")

# The frozen encoders have no backward.
ENCODERS = ("feature_extractor", "autoencoder", "text_encoder")

# What runs only in steps with an L_dec.
DECODER_PARTS = ("autoencoder", "text_encoder", "diffusion_transformer")


@dataclass
class Step:
    """Figures of one micro-step.

    Attributes:
        usage: by phase: a part's forward, or its name with " backward".
        kept: bytes alive between forward and backward, the batch apart: what autograd saved.
        tiled: whether the autoencoder took the frames in tiles.
    """

    usage: dict[str, Usage]
    kept: int
    tiled: bool

    @property
    def peak(self) -> int:
        """Most bytes alive at any moment of the step."""
        return max(usage.peak for usage in self.usage.values())


def measure_step(framework: VTokFramework, load: Workload) -> Step:
    """Figures of one micro-step of ``framework``, which lies on the meta device in the run's dtype."""
    framework.text = Lengths(load.crop_start)
    meter = Meter()
    with gradients_dropped(framework), meter:
        batch = load.batch(partial(torch.empty, device=META))
        given = meter.live
        loss = framework(batch)["loss"]
        kept = meter.live - given
        loss.backward()
    usage = {phase: used for phase, used in meter.usage.items() if phase}
    vae = getattr(framework.decoder, "vae", None)
    return Step(usage, kept, tiled=getattr(vae, "use_tiling", False))


def meta_copy(model: ModelConfig, precision: str) -> VTokFramework:
    """A configuration's framework without storage, in training mode; ``auto`` precision is bf16, as on GPUs."""
    framework = meta_framework(model).train()
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    for parameter in framework.parameters():
        parameter.data = parameter.data.to(dtype)
    return framework


@contextmanager
def gradients_dropped(framework: VTokFramework) -> Iterator[None]:
    """Parameters lose their gradient as soon as it is complete, as under ZeRO, which reduces and shards it."""
    trainable = [p for p in framework.parameters() if p.requires_grad]
    hooks = [p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None)) for p in trainable]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
