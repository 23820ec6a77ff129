"""What a study is made of."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser

from pipelines.config_files import PRESETS, read_yaml
from pipelines.errors import one_line
from vtok.config import ConfigError, LossConfig, require

STUDY = PRESETS / "study.yaml"


@dataclass
class RenderConfig:
    """
    Args:
        train, dev, test: clips. Those to test show combinations of colour, shape and label that no other clip shows.
        frames, fps, size: of a clip.
    """

    train: int = 20000
    dev: int = 180
    test: int = 1800
    frames: int = 24
    fps: int = 8
    size: int = 64


@dataclass
class Fitting:
    """A training of one of the frozen models: AdamW, warm-up, cosine down to zero."""

    steps: int = 1000
    batch_size: int = 64
    lr: float = 1e-3
    warmup: int = 100


@dataclass
class ClipConfig:
    """The image encoder and its text tower.

    Args:
        vision, text: of ``CLIPVisionConfig`` and ``CLIPTextConfig``.
        probe: of the gate.
        probe_clips: that the probe is trained on.
    """

    fit: Fitting = field(default_factory=Fitting)
    vision: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    projection_dim: int = 64
    probe: Fitting = field(default_factory=Fitting)
    probe_clips: int = 4000


@dataclass
class LatentsConfig:
    """
    Args:
        channels: of a latent.
        size, fps: of the decoder's videos.
    """

    channels: int = 32
    size: int = 32
    fps: float = 3.0


@dataclass
class LLMConfig:
    """``language`` is of ``LlamaConfig``."""

    fit: Fitting = field(default_factory=Fitting)
    language: dict[str, Any] = field(default_factory=dict)


@dataclass
class LlavaConfig:
    """The language model's further training, with pictures."""

    fit: Fitting = field(default_factory=Fitting)


@dataclass
class DiTConfig:
    """
    Args:
        transformer: of ``HunyuanVideoTransformer3DModel``.
        shift: of the scheduler, in training and sampling. What a caption says of these small videos is decided at
            noise levels between 0.8 and 0.98, of which a shift of 2 draws a quarter and one of 5 more than half.
        guidance: classifier-free scales, of which the dev split chooses one, for all arms alike.
        guidance_videos: that each is judged by, of each of TV-Align's categories.
        gate_videos: of each of TV-Align's categories.
    """

    fit: Fitting = field(default_factory=Fitting)
    transformer: dict[str, Any] = field(default_factory=dict)
    shift: float = 5.0
    guidance: list[float] = field(default_factory=lambda: [1.0, 2.0, 4.0])
    guidance_videos: int = 12
    gate_videos: int = 72


@dataclass
class ArmConfig:
    """A tokenisation strategy to be trained.

    Args:
        tokeniser: changes to ``StudyConfig.tokeniser``.
        g_phi_of_grid: ``g_phi`` gets the parameters it would have with this ``residual_grid``, by a wider hidden layer.
        table: where it is reported: ``main``, ``spatial``, ``temporal``, ``residual``, or ``training_free`` (asked also
            with tokens that it was not trained on); an arm may be in several.
    """

    tokeniser: dict[str, Any] = field(default_factory=dict)
    g_phi_of_grid: int | None = None
    table: list[str] = field(default_factory=lambda: ["main"])


@dataclass
class ClaimConfig:
    """That one arm answers better than another.

    Args:
        above: the other arm, or ``first frame only``: the arm itself, shown a first frame that stands still.
        protocol: ``understanding`` or ``generation``.
        categories: each is a claim of its own; ``all`` is their average.
        points: by which its accuracy is larger at least, in percent.
        apart: whether the intervals must not overlap.
    """

    arm: str
    above: str
    protocol: Literal["understanding", "generation"] = "understanding"
    categories: list[str] = field(default_factory=lambda: ["all"])
    points: float = 0.0
    apart: bool = False


@dataclass
class EvaluationConfig:
    """
    Args:
        questions: clips of each category asked about.
        videos: captions of each category generated from.
        denoising_steps, temperature: of the generation.
    """

    questions: int = 200
    videos: int = 50
    denoising_steps: int = 20
    temperature: float = 1.0


@dataclass
class StudyConfig:
    """A profile.

    Args:
        seconds: of a clip that a sample shows.
        tokeniser: what all arms have in common.
        claims: that the report tests.
        tried: what was done about claims that do not hold, said where one does not.
        seeds: each arm is trained once with each.
        train: of ``TrainConfig``, for all arms.
        loss: for all arms.
        probe: training of the probe of an arm's features.
        enforce_gates: whether a gate that fails stops what rests on it.
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
    """A profile of a study's YAML, laid over what the file has for all profiles.

    Raises:
        ConfigError: no such file, profile or setting.
    """
    tree = read_yaml(path)
    profiles = tree.pop("profiles", {})
    require(profile in profiles, f"{path} has no profile {profile!r}: choose one of {', '.join(profiles)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(StudyConfig, "study")
    try:
        values = parser.instantiate(parser.parse_object({"study": merged(tree, profiles[profile])}))
    except (ArgumentError, ValueError) as error:
        raise ConfigError(f"{path}: {one_line(error)}") from error
    return values["study"]


def merged(base: dict, changes: dict) -> dict:
    """``changes`` laid over ``base``, mappings key by key; ``null`` takes a key out."""
    result = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result
