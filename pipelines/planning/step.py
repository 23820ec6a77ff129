"""One training step of the real modules on the meta device, under the meter.

The order is that of ``VTokFramework.forward`` and of autograd, cut between the parts so that each phase has its own
figures. The layers of a transformer are alike: the step is run with a few of each stack, once more with one layer more,
and continued in a straight line to the full depth.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.planning.alike import alike_calls_run_once
from pipelines.planning.meter import Meter, Usage
from pipelines.planning.workload import Workload
from vtok.architectures import meta_framework
from vtok.config import ModelConfig
from vtok.decoder import Posterior
from vtok.decoders.tiling import can_tile
from vtok.framework import VTokFramework
from vtok.mllm import CONDITIONING_LAYER
from vtok.rows import RowPlan, assemble, plan_rows
from vtok.tokeniser import VisualFeatures

META = torch.device("meta")
BACKWARD = " backward"

# The frozen encoders have no backward.
ENCODERS = ("feature_extractor", "autoencoder", "text_encoder")

# What runs only in steps with an L_dec.
DECODER_PARTS = ("autoencoder", "text_encoder", "diffusion_transformer")


@dataclass
class Step:
    """Figures of one micro-step.

    Attributes:
        usage: by phase: a part's forward, or its name with " backward". The bytes of the encoders' phases are their own
            alone, those of the others count all that is alive in the step.
        kept: bytes alive between forward and backward: what autograd saved.
    """

    usage: dict[str, Usage]
    kept: int

    @property
    def peak(self) -> int:
        """Most bytes alive at any moment of the step."""
        return max(usage.peak for usage in self.phases().values())

    def phases(self) -> dict[str, Usage]:
        """Phases with all bytes that are alive: the autoencoder runs while the language model's are kept."""
        before = self.usage["heads"].peak
        return {
            name: Usage(usage.flops, usage.recomputed, usage.peak + before * (name in ENCODERS[1:]))
            for name, usage in self.usage.items()
        }


def measure_step(framework: VTokFramework, load: Workload) -> Step:
    """Figures of one micro-step of ``framework``, which lies on the meta device in the run's dtype."""
    stacks = layer_stacks(framework)
    base = [min(least, len(layers)) for _, _, layers, least in stacks]
    shallow = gradient_phases(framework, load, base)
    total = dict(shallow)
    for index, (_, _, layers, _) in enumerate(stacks):
        if missing := len(layers) - base[index]:
            deeper = [depth + (place == index) for place, depth in enumerate(base)]
            for key, value in gradient_phases(framework, load, deeper).items():
                total[key] += missing * (value - shallow[key])
    kept = total.pop(("step", "kept"))
    usage = encoder_phases(framework, load)
    for (name, figure), value in total.items():
        setattr(usage.setdefault(name, Usage()), figure, value)
    return Step(usage, kept)


def meta_copy(model: ModelConfig, precision: str) -> VTokFramework:
    """A configuration's framework without storage, in training mode; ``auto`` precision is bf16, as on GPUs."""
    framework = meta_framework(model).train()
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    for parameter in framework.parameters():
        parameter.data = parameter.data.to(dtype)
    return framework


def layer_stacks(framework: VTokFramework) -> list[tuple[nn.Module, str, nn.ModuleList, int]]:
    """Stacks of equal layers: module, attribute, layers, and the fewest that the step can be run with."""
    language_model, decoder = framework.mllm.causal_lm.model, framework.decoder
    stacks = [(language_model, "layers", language_model.layers, -CONDITIONING_LAYER)]
    if decoder is None:
        return stacks
    return stacks + [(decoder.transformer, name, getattr(decoder.transformer, name), 1) for name in decoder.stacks]


@contextmanager
def with_depths(framework: VTokFramework, depths: list[int]) -> Iterator[None]:
    stacks = layer_stacks(framework)
    for (module, name, layers, _), depth in zip(stacks, depths):
        setattr(module, name, layers[:depth])
    try:
        yield
    finally:
        for module, name, layers, _ in stacks:
            setattr(module, name, layers)


def gradient_phases(framework: VTokFramework, load: Workload, depths: list[int]) -> dict[tuple[str, str], int]:
    """Figures by (phase, figure) of the parts that gradients pass through, with so many layers of each stack."""
    meter = Meter()
    with with_depths(framework, depths), gradients_dropped(framework):
        kept = gradient_step(framework, load, meter)
    figures = {(name, figure): value for name, usage in meter.usage.items() for figure, value in vars(usage).items()}
    return figures | {("step", "kept"): kept}


def gradient_step(framework: VTokFramework, load: Workload, meter: Meter) -> int:
    """Forward and backward of language model, heads and diffusion transformer; returns the bytes kept in between."""
    weights = framework.config.loss
    understanding, generation = weights.under > 0, weights.vis_lm + weights.dec > 0
    noisy = generation and framework.config.visual_head.input_noise > 0
    plan = plan_rows(
        [load.text] * load.size, [sum(load.tokens)] * load.size, load.crop_start,
        understanding, generation, generation_visuals=load.size if noisy else 0,
    )  # fmt: skip
    is_spatial = plan.visual_index < load.tokens.spatial
    predicting = {
        kind: plan.visual_from[is_spatial if kind == "spatial" else ~is_spatial].to(META)
        for kind in framework.visual_head
    }
    features = frozen_features(framework, load, load.size * (2 if noisy else 1))
    latents, text = None, None
    if weights.dec > 0:
        latents, text = frozen_latents(framework, load), encoded_text(framework, load)
    plan = plan.to(META)

    with meter.phase("language_model"):
        visual = framework.projection(framework.tokeniser.encode(features))
        rows = assemble(plan, framework.mllm.embed(plan.token_ids), visual)
        hidden = framework.mllm(rows, plan.row_lengths, plan.shared_row)
    last, conditioning = cut(hidden.last), cut(hidden.conditioning)

    with meter.phase("heads"):
        states = last.flatten(0, 1)
        losses = [framework.mllm.lm_head(states[plan.answer_from], plan.answer_ids).mean()]
        for kind, places in predicting.items():
            target = getattr(features, kind)[: load.size].flatten(0, 1)[: len(places)]
            target = framework.tokeniser.feature_scale[kind].standardise(target)
            noise = torch.empty(len(target), framework.visual_head[kind].noise_dim, device=META)
            losses.append(framework.visual_head[kind].loss(states[places], target, noise).mean())
            del target, noise
    decoded = None
    if weights.dec > 0:
        with meter.phase("diffusion_transformer"):
            decoded = decoder_loss(framework, load, conditioning, plan, latents, text)
    kept = meter.live

    if decoded is not None:
        with meter.phase("diffusion_transformer" + BACKWARD, backward=True):
            decoded.backward()
            del decoded
    with meter.phase("heads" + BACKWARD, backward=True):
        sum(losses).backward()
        del losses
    with meter.phase("language_model" + BACKWARD, backward=True):
        ends = [(h, end.grad) for h, end in ((hidden.last, last), (hidden.conditioning, conditioning))]
        ends = [(h, grad) for h, grad in ends if grad is not None]
        torch.autograd.backward(*zip(*ends))
    return kept


def decoder_loss(
    framework: VTokFramework, load: Workload, states: Tensor, plan: RowPlan, latents: Posterior, text: Any
) -> Tensor:
    """L_dec of the micro-batch, conditioned on the generation rows of ``states`` (1, L, d)."""
    given = framework.decoder.condition(framework.generation_rows(states, plan), text)
    counts = [load.video.num_frames] * load.size
    return framework.decoder.loss(latents, counts, given, seeds=[0] * load.size).mean()


def encoder_phases(framework: VTokFramework, load: Workload) -> dict[str, Usage]:
    """Figures of the frozen encoders, which run without gradients."""
    meter, pixels = Meter(), dict(dtype=torch.uint8, device=META)
    frames, video = load.frames, load.video
    clips = torch.empty(load.size, frames.num_frames, 3, frames.height, frames.width, **pixels)
    with meter.phase("feature_extractor"):
        framework.tokeniser.features(clips)
    if framework.config.loss.dec > 0:
        with meter.phase("autoencoder"), alike_encoder_calls(framework.decoder.vae, meter):
            framework.decoder.encode(torch.empty(load.size, video.num_frames, 3, video.height, video.width, **pixels))
        with meter.phase("text_encoder"):
            encoded_text(framework, load)
    return dict(meter.usage)


def alike_encoder_calls(vae: nn.Module, meter: Meter) -> AbstractContextManager:
    """Count alike windows and tiles of a clip, where the autoencoder has any."""
    return alike_calls_run_once(vae.encoder, meter) if can_tile(vae) else nullcontext()


def frozen_features(framework: VTokFramework, load: Workload, clips: int) -> VisualFeatures:
    dims, dtype = framework.tokeniser.feature_dims, next(framework.projection.parameters()).dtype
    spatial, motion = (
        torch.empty(clips, count, dims.get(kind, 0), dtype=dtype, device=META)
        for kind, count in load.tokens._asdict().items()
    )
    return VisualFeatures(spatial, motion, [load.tokens.motion] * clips)


def frozen_latents(framework: VTokFramework, load: Workload) -> Posterior:
    shape = framework.decoder.latent_shape(load.video.num_frames, load.video.height, load.video.width)
    dtype = framework.decoder.vae.dtype
    return Posterior(*(torch.empty(load.size, *shape, dtype=dtype, device=META) for _ in range(2)))


def encoded_text(framework: VTokFramework, load: Workload) -> Any:
    """What the decoder's text encoder makes of the captions."""
    return framework.decoder.encode_text([load.text.decoder_ids] * load.size, META)


def cut(states: Tensor) -> Tensor:
    """The same states as a leaf, so that each side's backward is its own phase."""
    return states.detach().requires_grad_()


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
