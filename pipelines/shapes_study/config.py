"""The settings of a study."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from pipelines.cli.config_files import PRESETS, read_yaml
from pipelines.cli.errors import one_line
from vtok.config import ConfigError, LossConfig, require

STUDY = PRESETS / "study.yaml"

Settings = TypeVar("Settings")


@dataclass
class RenderConfig:
    """The clips to render.

    Args:
        train: Clips to train on.
        dev: Clips to choose settings by.
        test: Clips to test on. They show combinations of colour, shape and label that no other clip shows.
        frames: Frames per clip.
        fps: Frames per second.
        size: Side of a frame in pixels.
    """

    train: int = 20000
    dev: int = 180
    test: int = 1800
    frames: int = 24
    fps: int = 8
    size: int = 64


@dataclass
class Fitting:
    """The training of a small model: AdamW, linear warm-up, then a cosine down to zero.

    Args:
        steps: Optimiser steps.
        batch_size: Samples per step.
        lr: Highest learning rate.
        warmup: Steps of the warm-up.
    """

    steps: int = 1000
    batch_size: int = 64
    lr: float = 1e-3
    warmup: int = 100


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
class LatentsConfig:
    """The autoencoder.

    Args:
        channels: Channels of a latent.
        size: Side of the decoder's videos in pixels.
        fps: Frames per second of the decoder's videos.
    """

    channels: int = 32
    size: int = 32
    fps: float = 3.0


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
class LlavaConfig:
    """The image model: the language model, trained further with pictures.

    Args:
        fit: Its training.
    """

    fit: Fitting = field(default_factory=Fitting)


@dataclass
class DiTConfig:
    """The video decoder.

    Args:
        fit: Its training.
        transformer: Settings of ``HunyuanVideoTransformer3DModel``.
        shift: Shift of the scheduler, in training and sampling. What a caption says about these small videos is decided
            at noise levels between 0.8 and 0.98. A shift of 2 draws a quarter of its levels there, a shift of 5 more
            than half.
        guidance: Scales of classifier-free guidance to try on the dev split. All arms use the best one.
        guidance_videos: Videos per category of TV-Align that judge each scale.
        gate_videos: Videos per category of TV-Align for the gate.
    """

    fit: Fitting = field(default_factory=Fitting)
    transformer: dict[str, Any] = field(default_factory=dict)
    shift: float = 5.0
    guidance: list[float] = field(default_factory=lambda: [1.0, 2.0, 4.0])
    guidance_videos: int = 12
    gate_videos: int = 72


@dataclass
class ArmConfig:
    """A tokenisation strategy to train.

    Args:
        tokeniser: Changes to ``StudyConfig.tokeniser``.
        g_phi_of_grid: If set, the hidden layer of ``g_phi`` is widened until it has as many parameters as with this
            ``residual_grid``.
        table: Tables of the report that show the arm: ``main``, ``spatial``, ``temporal``, ``residual``, or
            ``training_free`` (the arm is also asked with training-free tokens).
    """

    tokeniser: dict[str, Any] = field(default_factory=dict)
    g_phi_of_grid: int | None = None
    table: list[str] = field(default_factory=lambda: ["main"])


@dataclass
class ClaimConfig:
    """The claim that one arm answers better than another.

    Args:
        arm: The better arm.
        above: The other arm, or ``first frame only``: the same arm, shown its first frame repeated.
        protocol: ``understanding`` or ``generation``.
        categories: Each category is a claim of its own. ``all`` is all questions together.
        points: Least difference of the accuracies, in percentage points.
        apart: Whether the intervals must not overlap.
    """

    arm: str
    above: str
    protocol: Literal["understanding", "generation"] = "understanding"
    categories: list[str] = field(default_factory=lambda: ["all"])
    points: float = 0.0
    apart: bool = False


@dataclass
class EvaluationConfig:
    """The evaluation of an arm.

    Args:
        questions: Clips per category to ask about.
        videos: Captions per category to generate videos from.
        denoising_steps: Steps of the decoder's sampler.
        temperature: Temperature of the sampled visual tokens.
    """

    questions: int = 200
    videos: int = 50
    denoising_steps: int = 20
    temperature: float = 1.0


@dataclass
class StudyConfig:
    """A study: one profile of the YAML.

    Args:
        seed: Seed of the stages before joint training.
        seconds: Length of the part of a clip that a sample shows.
        enforce_gates: Whether a failed gate stops the stages that depend on it.
        render: The clips.
        clip: The image encoder.
        latents: The autoencoder.
        llm: The language model.
        llava: The image model.
        dit: The video decoder.
        tokeniser: Settings of the tokeniser that all arms share.
        arms: The strategies to compare, by name.
        claims: The claims that the report tests.
        tried: What was tried to make missed claims hold. The report lists it if a claim is missed.
        seeds: Each arm is trained once with each seed.
        train: Settings of ``TrainConfig`` for all arms.
        loss: Weights of the losses for all arms.
        probe: Training of the probe of an arm's features.
        evaluation: The evaluation of each arm.

    Raises:
        ConfigError: There are no arms or no seeds.
    """

    seed: int = 0
    seconds: float = 3.0
    enforce_gates: bool = True
    render: RenderConfig = field(default_factory=RenderConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    llm: LLMConfig = field(default_factory=LLMConfig)
    llava: LlavaConfig = field(default_factory=LlavaConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)
    tokeniser: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, ArmConfig] = field(default_factory=dict)
    claims: list[ClaimConfig] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    train: dict[str, Any] = field(default_factory=dict)
    loss: LossConfig = field(default_factory=LossConfig)
    probe: Fitting = field(default_factory=lambda: Fitting(steps=1000, batch_size=128))
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self):
        require(bool(self.arms), "a study needs arms")
        require(bool(self.seeds), "a study needs seeds")


def load_study(path: Path, profile: str) -> StudyConfig:
    """Reads a profile of a study's YAML (see :func:`load_profile`)."""
    return load_profile(StudyConfig, path, profile)


def load_profile(kind: type[Settings], path: Path, profile: str) -> Settings:
    """Reads a profile of a YAML. Its settings override those that the file gives for all profiles.

    Args:
        kind: The dataclass that the settings fill.
        path: The YAML.
        profile: Name of the profile.

    Raises:
        ConfigError: The file, the profile or a setting does not exist.
    """
    tree = read_yaml(path)
    profiles = tree.pop("profiles", {})
    require(profile in profiles, f"{path} has no profile {profile!r}: choose one of {', '.join(profiles)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "study")
    try:
        values = parser.instantiate(parser.parse_object({"study": merged(tree, profiles[profile] or {})}))
    except (ArgumentError, ValueError) as error:
        raise ConfigError(f"{path}: {one_line(error)}") from error
    return values["study"]


def merged(base: dict, changes: dict) -> dict:
    """Returns ``base`` with ``changes``. Mappings are merged key by key; a change to ``None`` removes the key."""
    result = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result
