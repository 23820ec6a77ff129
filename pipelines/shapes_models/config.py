"""The settings of the small models: a profile of ``configs/shapes_models.yaml``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.cli.config_files import PRESETS
from pipelines.shapes_study.config import Fitting, load_profile
from vtok.config import require

PROFILES = PRESETS / "shapes_models.yaml"


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
class JointConfig:
    """The joint training of VTok.

    Args:
        clips: Clips to train on.
        train: Changes to ``StudyConfig.train``.
        components: Gaussians of each visual head that stay after the training.
        descriptions: Held-out clips that VTok describes at last.
        videos: Videos per category of TV-Align that VTok is judged by. It samples their visual tokens.
    """

    clips: int = 6000
    train: dict[str, Any] = field(default_factory=dict)
    components: int = 3
    descriptions: int = 540
    videos: int = 24


@dataclass
class ModelsConfig:
    """The small models.

    Args:
        study: Profile of the study whose architectures these models have.
        seed: Seed of all draws after the image model's.
        clips: Clips that the decoder is trained on.
        channels: Channels of the decoder's latents.
        tower: Training of the decoder's text encoder.
        decoder: Training of the decoder.
        guidance: Scale of classifier-free guidance.
        videos: Videos per category of TV-Align that the decoder is judged by.
        denoising_steps: Steps of the sampler.
        descriptions: Pictures that the image model describes at last.
        joint: Joint training of VTok.
    """

    study: str = "cpu"
    seed: int = 1
    clips: int = 30000
    channels: int = 64
    tower: Fitting = field(default_factory=lambda: Fitting(steps=250, batch_size=48, lr=1.5e-3, warmup=20))
    decoder: DecoderFitting = field(default_factory=DecoderFitting)
    guidance: float = 2.0
    videos: int = 72
    denoising_steps: int = 20
    descriptions: int = 540
    joint: JointConfig = field(default_factory=JointConfig)


def load_models(path: Path, profile: str) -> ModelsConfig:
    """Reads a profile of the YAML (see :func:`load_profile`)."""
    return load_profile(ModelsConfig, path, profile)
