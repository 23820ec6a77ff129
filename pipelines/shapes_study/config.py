"""The settings of the base models, and what all studies' settings share."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from pipelines.cli.config_files import PRESETS, read_yaml
from pipelines.cli.errors import one_line
from vtok.config import ConfigError, LossConfig, require

STUDY = PRESETS / "base_models.yaml"

Settings = TypeVar("Settings")


@dataclass
class RenderConfig:
    """The clips to render.

    Args:
        train: Clips to train on.
        dev: Clips to choose settings by.
        test: Clips of combinations of colour, shape and label that no other clip shows.
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
    """

    fit: Fitting = field(default_factory=Fitting)
    transformer: dict[str, Any] = field(default_factory=dict)
    shift: float = 5.0


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
class StudyConfig:
    """The base models, and the joint training of the VTok that ships with them: one profile of the YAML.

    Args:
        seed: Seed of the stages before joint training.
        seconds: Length of the part of a clip that a sample shows.
        render: The clips.
        clip: The image encoder.
        latents: The autoencoder.
        llm: The language model.
        llava: The image model.
        dit: The video decoder.
        tokeniser: Settings of the tokeniser in joint training.
        train: Settings of ``TrainConfig`` in joint training.
        loss: Weights of the losses in joint training.
    """

    seed: int = 0
    seconds: float = 3.0
    render: RenderConfig = field(default_factory=RenderConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    llm: LLMConfig = field(default_factory=LLMConfig)
    llava: LlavaConfig = field(default_factory=LlavaConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)
    tokeniser: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    loss: LossConfig = field(default_factory=LossConfig)


def load_study(path: Path, profile: str) -> StudyConfig:
    """Reads a profile of the base models' YAML (see :func:`load_profile`)."""
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
