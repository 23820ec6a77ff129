"""The configuration of a VidTok's training. It has typed sections; the command line overrides the YAML file.

VidTokRunConfig
  model       a published name, and the fields to change
  data        the videos, and the clips cut out of them
  loss        perceptual and adversarial loss
  train       batch, steps, optimiser
  checkpoint  when to save
  track       what shows the figures
  validation  held-out videos
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from pipelines.cli.parsing import RunArguments, parse_with
from pipelines.config import CheckpointConfig, OptimisationConfig, Trackers, require_seed
from pipelines.vidtok_training.models import config_of, published_name
from vtok.config import MOST_FPS, require

LEAST_PATCHES = 32  # the smallest side, in pixels, of a PatchGAN's input


@dataclass
class VideoDataConfig:
    """The videos, and the clips cut out of them.

    Args:
        shards: Folder that ``vtok-shards build`` wrote, or its address (``s3://``, ``hf://``, ``https://``, ...).
        root: Instead of ``shards``: a folder of video files, at any depth.
        meta_path: With ``root``: a .csv with a column ``videos`` of paths in that folder. Only these videos are used.
        frames: Frames per clip. Shorter videos are filled up with copies of their last frame.
        fps: Frames per second of a clip. A low rate shows much motion in few frames.
        height: Height of a clip in pixels.
        width: Width of a clip in pixels.
        fit: ``crop`` or ``pad`` videos to that shape.
        crop: Side in pixels of a square cut out of each clip at a random place, for more clips at the same cost. Whole
            frames if omitted.
        decoder: Video decoding library.
        workers: Loader processes per rank; 0 decodes in the training process.
        max_bad_share: Share of samples that may be unreadable before the run stops.
        cache_dir: Folder that remote shards are cached in.
        cache_gb: Largest size of the cache in GB.

    Raises:
        ConfigError: A value is out of range.
    """

    shards: str | None = None
    root: str | None = None
    meta_path: str | None = None
    frames: int = 17
    fps: float = 3.0
    height: int = 128
    width: int = 128
    fit: Literal["crop", "pad"] = "crop"
    crop: int | None = None
    decoder: Literal["pyav", "torchcodec", "decord"] = "pyav"
    workers: int = 2
    max_bad_share: float = 0.01
    cache_dir: str = "~/.cache/vtok/shards"
    cache_gb: float = 64.0

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the model's input in pixels."""
        return (self.crop, self.crop) if self.crop else (self.height, self.width)

    def __post_init__(self):
        require(self.frames >= 1, "data.frames must be at least 1")
        require(0 < self.fps <= MOST_FPS, f"data.fps must be positive and at most {MOST_FPS}")
        require(
            self.crop is None or self.crop <= min(self.height, self.width),
            f"data.crop must be at most data.height and data.width, not {self.crop}",
        )
        require(self.workers >= 0, "data.workers must not be negative")
        require(0 <= self.max_bad_share <= 1, "data.max_bad_share must lie in 0..1")
        require(self.cache_gb > 0, "data.cache_gb must be positive")


@dataclass
class LossConfig:
    """The perceptual and the adversarial loss.

    Args:
        lpips_vgg: Local file with the weights of VGG-16 (see ``vtok.vidtok.losses.perceptual``). LPIPS is off without.
        lpips_linear: Local file with LPIPS's weights of the channels. Give both files or none.
        discriminator: Judges patches of frames (``2d``) or of space and time (``3d``); ``none`` for no discriminator.
        discriminator_start: Steps before the discriminator takes part.

    Raises:
        ConfigError: Only one file is given, or ``discriminator_start`` is negative.
    """

    lpips_vgg: str | None = None
    lpips_linear: str | None = None
    discriminator: Literal["2d", "3d", "none"] = "2d"
    discriminator_start: int = 10_000

    def __post_init__(self):
        require(
            (self.lpips_vgg is None) == (self.lpips_linear is None),
            "give both of loss.lpips_vgg and loss.lpips_linear, or none",
        )
        require(self.discriminator_start >= 0, "loss.discriminator_start must not be negative")


@dataclass
class VidTokTrainConfig(OptimisationConfig):
    """Batch, steps and optimiser, the same for both engines; some defaults differ from those of VTok's training.

    Args:
        gradient_checkpointing: Recompute the autoencoder's blocks in backward, for long clips.
    """

    max_grad_norm: float = 20.0
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    ema_decay: float | None = None
    gradient_checkpointing: bool = False


@dataclass
class HeldOutVideosConfig:
    """Validation on held-out videos.

    Args:
        every: Steps between validations; the last step is always validated. 0 turns it off. 1000 if omitted.
        shards, root, meta_path: The held-out videos, as in ``data``. There is no validation without them.
        samples: Videos that are used at most, from the first on.

    Raises:
        ConfigError: A value is out of range.
    """

    every: int | None = None
    shards: str | None = None
    root: str | None = None
    meta_path: str | None = None
    samples: int = 16

    def __post_init__(self):
        require(self.every is None or self.every >= 0, "validation.every must not be negative")
        require(self.samples >= 1, "validation.samples must be at least 1")
        require(self.shards is None or self.root is None, "set at most one of validation.shards and validation.root")
        require(self.meta_path is None or self.root is not None, "validation.meta_path goes with validation.root")

    @property
    def wanted(self) -> bool:
        """Whether there is a validation."""
        return self.every != 0 and (self.shards or self.root) is not None


@dataclass
class VidTokValidationConfig(HeldOutVideosConfig):
    """Validation of a VidTok.

    Args:
        videos: Number of the videos that go to TensorBoard, beside their reconstructions.

    Raises:
        ConfigError: A value is out of range.
    """

    videos: int = 2

    def __post_init__(self):
        super().__post_init__()
        require(self.videos >= 0, "validation.videos must not be negative")


@dataclass
class VidTokRunConfig:
    """The configuration of a run.

    Args:
        model: ``name`` of a published VidTok, and fields of ``VidTokConfig`` to change, such as ``ch``.
        train: Batch, steps and optimiser.
        weights: .safetensors or published .ckpt to start from. The weights are random if omitted.
        fix_encoder: Whether to train the decoder only.
        seed: Seed of every random draw.
        track: What shows the figures. All but TensorBoard are packages to install.
        data: The videos.
        loss: Perceptual and adversarial loss.
        checkpoint: When to save.
        validation: The held-out videos.

    Raises:
        ConfigError: Values contradict each other.
    """

    model: dict[str, Any]
    train: VidTokTrainConfig
    weights: str | None = None
    fix_encoder: bool = False
    seed: int = 0
    track: list[Trackers] = field(default_factory=lambda: ["tensorboard"])
    data: VideoDataConfig = field(default_factory=VideoDataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    validation: VidTokValidationConfig = field(default_factory=VidTokValidationConfig)

    def __post_init__(self):
        require_seed(self.seed)
        require(
            self.checkpoint.keep != "best",
            "a VidTok's run keeps no best checkpoint: set checkpoint.keep to a number",
        )
        require("name" in self.model, "model.name is missing: give a published name")
        model, data = config_of(self.model), self.data
        factor, (height, width) = model.space_factor, data.sides
        require(
            min(height, width) >= factor and height % factor == width % factor == 0,
            f"data.height and data.width, or data.crop, must be multiples of {factor}, not {height}x{width}",
        )
        require(
            self.loss.discriminator == "none" or min(height, width) >= LEAST_PATCHES,
            f"a discriminator needs clips of at least {LEAST_PATCHES} pixels a side: enlarge them, or set "
            "loss.discriminator none",
        )
        require(
            model.is_causal or data.frames % model.time_factor == 0,
            f"this VidTok takes clips of a multiple of {model.time_factor} frames: set data.frames to 16, "
            f"not {data.frames}",
        )
        require(
            not self.fix_encoder or self.weights is not None,
            "fix_encoder needs weights: a random encoder must be trained",
        )
        require((data.shards is None) != (data.root is None), "set exactly one of data.shards and data.root")
        require(data.meta_path is None or data.root is not None, "data.meta_path goes with data.root")


def parse_vidtok_arguments(argv: list[str] | None = None) -> RunArguments[VidTokRunConfig]:
    """Parses a command line; ``--config`` takes a YAML file or a published name.

    Args:
        argv: The words of the command line; see :func:`pipelines.cli.parsing.parse_run_arguments`.

    Raises:
        ConfigError: A key is unknown (the message names the nearest), a value is wrong, or the file does not exist.
    """
    argv = sys.argv[1:] if argv is None else argv
    argv = [word for arg in argv for word in (arg.split("=", 1) if arg.startswith("--config=") else [arg])]
    name = None
    for place, (option, value) in enumerate(zip(argv, argv[1:])):
        if option == "--config" and not Path(value).suffix:
            name = published_name(value)
            argv[place : place + 2] = ["--model.name", name]
    parser = ArgumentParser(
        prog="train_vidtok", print_config=None, exit_on_error=False, description="Train a VidTok with ZeRO-2."
    )
    arguments = parse_with(parser, VidTokRunConfig, argv, "zero2.json", "model.")
    return replace(arguments, preset=name) if name else arguments
