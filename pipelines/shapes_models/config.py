"""The settings of the small models: a profile of ``configs/shapes_models.yaml``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.cli.config_files import PRESETS
from pipelines.shapes_study.config import Fitting, load_profile
from vtok.config import LossConfig, VisualHeadConfig, require

PROFILES = PRESETS / "shapes_models.yaml"


@dataclass
class RenderConfig:
    """The clips.

    Args:
        frames: Frames per clip.
        fps: Frames per second.
        size: Side of a frame in pixels.
    """

    frames: int = 24
    fps: int = 8
    size: int = 64


@dataclass
class LatentsConfig:
    """The decoder's videos and their latents.

    Args:
        channels: Channels of a latent.
        size: Side of a frame in pixels.
        fps: Frames per second.
    """

    channels: int = 64
    size: int = 32
    fps: float = 3.0


@dataclass
class ClipConfig:
    """The image encoder and its text tower.

    Args:
        fit: Training of the CLIP.
        vision: Settings of ``CLIPVisionConfig``.
        text: Settings of ``CLIPTextConfig``.
        projection_dim: Width of the common space of pictures and texts.
        probe: Training of the gate's probe.
        probe_clips: Clips that the probe is trained on.
    """

    fit: Fitting = field(default_factory=Fitting)
    vision: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    projection_dim: int = 64
    probe: Fitting = field(default_factory=Fitting)
    probe_clips: int = 4000


@dataclass
class LLMConfig:
    """The language model.

    Args:
        fit: Its training.
        language: Settings of ``LlamaConfig``.
    """

    fit: Fitting = field(default_factory=Fitting)
    language: dict[str, Any] = field(default_factory=dict)


@dataclass
class DecoderFitting:
    """The training of the decoder: Muon and AdamW with a constant learning rate that falls linearly to zero at the end.

    Args:
        steps: Optimiser steps.
        batch_size: Samples per step, of all processes together.
        lr: AdamW's learning rate.
        muon: Muon's learning rate as a multiple of ``lr``.
        warmup: Steps of the warm-up.
        cooldown: Share of the steps, at the end, in which the learning rate falls to zero.
        average: Decay of the running average of the weights.
        detailed: Share of detailed captions.
        empty: Share of the captions that are left empty, for classifier-free guidance.
        shown: Share of the batches in which tokens of the clip's first frame follow a caption, which is never empty.
        processes: Processes that share a batch. One is best on a GPU; on a CPU, one per core.
    """

    steps: int = 6000
    batch_size: int = 32
    lr: float = 1.5e-3
    muon: float = 2.5
    warmup: int = 30
    cooldown: float = 0.4
    average: float = 0.995
    detailed: float = 0.65
    empty: float = 0.1
    shown: float = 0.25
    processes: int = 2

    def __post_init__(self):
        require(self.batch_size % self.processes == 0, "decoder.batch_size must be a multiple of decoder.processes")


@dataclass
class DescribingConfig:
    """The training on L_under alone (:mod:`pipelines.shapes_models.describing`).

    Args:
        clips: Clips of the categories that are the hardest to describe.
        share: Share of the samples that are such clips.
        train: Settings of ``TrainConfig``.
    """

    clips: int = 67000
    share: float = 0.75
    train: dict[str, Any] = field(default_factory=dict)


@dataclass
class OwnConfig:
    """The last training, on tokens that VTok samples itself too (:mod:`pipelines.shapes_models.own_tokens`).

    Args:
        clips: Clips whose tokens are sampled.
        guidance: Scale of the samples' classifier-free guidance.
        share: Share of the samples that are such clips.
        hard: Share of the samples that are clips of :class:`DescribingConfig`.
        loss: Changes of ``LossConfig``.
        train: Settings of ``TrainConfig``.
    """

    clips: int = 5000
    guidance: float = 2.0
    share: float = 0.2
    hard: float = 0.35
    loss: dict[str, Any] = field(default_factory=lambda: {"under": 2.0, "dec_every": 1})
    train: dict[str, Any] = field(default_factory=dict)


@dataclass
class JointConfig:
    """The joint training of VTok.

    Args:
        clips: Clips to train on.
        tokeniser: Settings of ``VTokConfig``.
        visual_head: Settings of the visual heads.
        loss: Weights of the losses.
        data: Settings of ``DataConfig``.
        train: Settings of ``TrainConfig``.
        describing: The training that follows, on L_under alone.
        own: The last training.
        descriptions: Held-out clips that VTok describes at last.
        videos: Videos per category of TV-Align that VTok is judged by. It samples their visual tokens.
    """

    clips: int = 6000
    tokeniser: dict[str, Any] = field(default_factory=dict)
    visual_head: VisualHeadConfig = field(default_factory=VisualHeadConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    describing: DescribingConfig = field(default_factory=DescribingConfig)
    own: OwnConfig = field(default_factory=OwnConfig)
    descriptions: int = 540
    videos: int = 24


@dataclass
class ModelsConfig:
    """The small models.

    Args:
        seed: Seed of the clip, the language and the image model. All later stages use the one after it.
        seconds: Length of a clip.
        grid: Visual tokens along a side of a frame.
        render: The clips.
        latents: The decoder's videos.
        clip: The image encoder.
        llm: The language model.
        llava: Training of the image model.
        descriptions: Pictures that the image model describes.
        tower: Training of the decoder's text encoder.
        clips: Clips that the decoder is trained on.
        transformer: Settings of ``HunyuanVideoTransformer3DModel``.
        shift: Shift of the scheduler, in training and sampling. What a caption says about these small videos is decided
            at noise levels between 0.8 and 0.98. A shift of 2 draws a quarter of its levels there, a shift of 5 more
            than half.
        decoder: Training of the decoder.
        guidance: Scale of classifier-free guidance.
        videos: Videos per category of TV-Align that the decoder is judged by.
        denoising_steps: Steps of the sampler.
        joint: Joint training of VTok.
    """

    seed: int = 0
    seconds: float = 3.0
    grid: int = 4
    render: RenderConfig = field(default_factory=RenderConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    llm: LLMConfig = field(default_factory=LLMConfig)
    llava: Fitting = field(default_factory=Fitting)
    descriptions: int = 540
    tower: Fitting = field(default_factory=lambda: Fitting(steps=250, batch_size=48, lr=1.5e-3, warmup=20))
    clips: int = 30000
    transformer: dict[str, Any] = field(default_factory=dict)
    shift: float = 5.0
    decoder: DecoderFitting = field(default_factory=DecoderFitting)
    guidance: float = 2.0
    videos: int = 72
    denoising_steps: int = 20
    joint: JointConfig = field(default_factory=JointConfig)

    @property
    def later_seed(self) -> int:
        """Seed of the stages after the image model."""
        return self.seed + 1


def load_models(path: Path, profile: str) -> ModelsConfig:
    """Reads a profile of the YAML (see :func:`load_profile`)."""
    return load_profile(ModelsConfig, path, profile)
