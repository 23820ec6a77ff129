"""The settings of the study of variants: a profile of ``configs/study_variants.yaml``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.cli.config_files import PRESETS
from pipelines.shapes_study.config import ArmConfig, Fitting, load_profile
from vtok.config import require

VARIANTS = PRESETS / "study_variants.yaml"


@dataclass
class WorldConfig:
    """The clips.

    Args:
        train: Clips to train on.
        asked: Questions to ask in each category, about new scenes of the training distribution.
        frames: Frames of a clip. The first is the key frame, each other one has a motion token.
        fps: Frames per second.
        size: Side of a frame in pixels.
        categories: Categories of the shapes world. Clips with a cut are added, one of so many more.
    """

    train: int = 4000
    asked: int = 60
    frames: int = 13
    fps: float = 4.0
    size: int = 64
    categories: list[str] = field(
        default_factory=lambda: ["direction", "state", "motion", "bounce_count", "two_movers"]
    )

    def __post_init__(self) -> None:
        require(min(self.frames, self.asked) >= 2, "world.frames and world.asked must be at least 2")


@dataclass
class VariantsConfig:
    """A study of variants.

    Args:
        seed: Seed of the clips.
        seeds: Each arm is trained once with each seed: of new weights, and of the order of the clips.
        world: The clips.
        fit: Training of a run.
        tokeniser: Settings of the tokeniser that all arms share.
        arms: The arms, by name. The first is the one that the others are compared with.

    Raises:
        ConfigError: There are fewer than two arms or two seeds.
    """

    seed: int = 0
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    world: WorldConfig = field(default_factory=WorldConfig)
    fit: Fitting = field(default_factory=Fitting)
    tokeniser: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, ArmConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(len(self.arms) > 1 and len(self.seeds) > 1, "a study of variants needs two arms and two seeds or more")


def load_variants(path: Path, profile: str) -> VariantsConfig:
    """Reads a profile of the YAML (see :func:`load_profile`)."""
    return load_profile(VariantsConfig, path, profile)
