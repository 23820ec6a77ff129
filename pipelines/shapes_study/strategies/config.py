"""The settings of the study of strategies: a profile of ``configs/study.yaml``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.cli.config_files import PRESETS
from pipelines.shapes_study.config import ArmConfig, Fitting, load_profile
from pipelines.shapes_study.paired import Variances
from pipelines.shapes_study.power import Pilot
from vtok.config import require

STRATEGIES = PRESETS / "study.yaml"
MAIN = "main"  # the table whose arms have all kinds of video, and videos of unseen combinations


@dataclass
class WorldConfig:
    """The clips.

    Args:
        train: Clips to train on.
        seconds: Length of a clip.
        fps: Frames per second that the tokeniser gets.
        size: Side of a frame in pixels.
    """

    train: int = 6000
    seconds: float = 3.0
    fps: float = 12.0
    size: int = 64

    @property
    def frames(self) -> int:
        """Frames of a clip that the tokeniser gets."""
        return round(self.seconds * self.fps) + 1


@dataclass
class OwnConfig:
    """The second part of a training (:mod:`pipelines.shapes_study.strategies.own_tokens`).

    Args:
        clips: Clips to train on, the first ones, whose tokens the arm samples itself.
        fit: The training. Half of each batch are such clips.
    """

    clips: int = 1000
    fit: Fitting = field(default_factory=Fitting)


@dataclass
class CodecConfig:
    """The codec of a strategy that has one of its own. It is trained once, for all seeds, on the study's clips.

    Args:
        frames: Frames of a clip in its training. Behind the clip's end stand copies of its last frame.
        model: Its sizes.
        fit: Its training.
    """

    frames: int = 17
    model: dict[str, Any] = field(default_factory=dict)
    fit: Fitting = field(default_factory=Fitting)


@dataclass
class AskedConfig:
    """What is asked, in each category.

    Args:
        questions: Questions about new scenes of the training distribution, and as many about unseen combinations.
        videos: Videos of new scenes, as an arm generates them.
        other_videos: Videos of the first of these scenes from the prompt alone and from true tokens; and of unseen
            combinations.
        other_seeds: The first seeds of a main arm make these other videos. The differences that they show are large.
        denoising_steps: Steps of the decoder's sampler.
        batch: Videos that are made together.
    """

    questions: int = 160
    videos: int = 120
    other_videos: int = 20
    other_seeds: int = 3
    denoising_steps: int = 20
    batch: int = 20

    def __post_init__(self) -> None:
        require(
            2 <= self.other_videos <= self.videos <= self.questions,
            "asked.questions must be at least asked.videos, these at least asked.other_videos, and these at least 2",
        )


@dataclass
class PowerConfig:
    """The precision that the numbers of seeds and items are chosen for.

    Args:
        over_all: Largest half-width of the 95 % interval of a difference over all items, in points.
        category: Largest half-width in a category, in points.
        pilot: By protocol, ``understanding`` or ``generation``: the variances of a difference that a pilot measured, in
            squared points: ``over_all`` and ``category``, each [seed, item, rest].
    """

    over_all: float = 3.0
    category: float = 8.0
    pilot: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def pilot_of(self, protocol: str) -> Pilot:
        """Returns the variances of a protocol."""
        return Pilot(*(Variances(*self.pilot[protocol][part]) for part in ("over_all", "category")))


@dataclass
class ClaimConfig:
    """A claim about the difference between two series of values (:mod:`pipelines.shapes_study.strategies.series`).

    Args:
        source: Where the claim stands: ``Table 4`` of the paper, for example.
        arm: The arm of the claim.
        than: The arm that it is compared with, perhaps the same.
        of: Series of both arms; each is a claim of its own.
        than_of: The series that the same arm is compared in.
        kind: ``above``: the difference is above ``points``. ``equal``: it lies within ``points`` on both sides of 0.
            ``not below``: it is above minus ``points``.
        points: See ``kind``. In percentage points, or in percent of a width or an octave.
    """

    source: str
    arm: str
    than: str
    of: list[str] = field(default_factory=lambda: ["understanding", "generation"])
    than_of: str | None = None
    kind: Literal["above", "equal", "not below"] = "above"
    points: float = 0.0

    def __post_init__(self) -> None:
        require(self.kind == "above" or self.points > 0, f"a claim of kind {self.kind!r} needs points above 0")
        same = self.arm == self.than
        require(
            same == (self.than_of is not None), "than_of goes with a claim of an arm about itself: set both or none"
        )


@dataclass
class StrategiesConfig:
    """A study of strategies.

    Args:
        seed: Seed of the clips and of the videos' noise.
        seeds: Seeds of each arm: of new weights, of the order of the clips and of the losses' noise.
        world: The clips.
        fit: First part of the training of a run.
        own: Its second part, on tokens that the arm samples itself.
        asked: What is asked.
        power: The precision that the numbers are chosen for.
        tokeniser: Settings of the tokeniser that all arms share.
        codecs: By strategy, the codecs.
        arms: The arms, by name. The first one is the one that tables compare the others with.
        claims: The claims that the report tests.

    Raises:
        ConfigError: There are fewer than two arms or two seeds.
    """

    seed: int = 0
    seeds: int = 10
    world: WorldConfig = field(default_factory=WorldConfig)
    fit: Fitting = field(default_factory=Fitting)
    own: OwnConfig = field(default_factory=OwnConfig)
    asked: AskedConfig = field(default_factory=AskedConfig)
    power: PowerConfig = field(default_factory=PowerConfig)
    tokeniser: dict[str, Any] = field(default_factory=dict)
    codecs: dict[str, CodecConfig] = field(default_factory=dict)
    arms: dict[str, ArmConfig] = field(default_factory=dict)
    claims: list[ClaimConfig] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(min(len(self.arms), self.seeds) > 1, "a study needs two arms or more, and two seeds or more of each")
        require(self.own.clips <= self.world.train, "own.clips must be at most world.train")

    @property
    def runs(self) -> list[tuple[str, int]]:
        """All arms and seeds in the order of work: seed by seed, so that a study under way compares all arms.

        Arms with a codec of their own come last, so that a study that goes on elsewhere trains codecs only once.
        """
        last = [arm for arm, own in self.arms.items() if own.tokeniser.get("strategy") in self.codecs]
        others = [arm for arm in self.arms if arm not in last]
        return [(arm, seed) for group in (others, last) for seed in range(self.seeds) for arm in group]


def load_strategies(path: Path, profile: str) -> StrategiesConfig:
    """Reads a profile of the YAML (see :func:`load_profile`)."""
    return load_profile(StrategiesConfig, path, profile)
