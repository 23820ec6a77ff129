"""The configuration of a VidTok's training: typed sections, a YAML file, then the command line, which wins.

VidTokRunConfig
  model       a published name, and what differs from it
  data        which videos, and the clips cut out of them
  loss        what counts beside the pixels
  train       batch, steps, optimiser
  checkpoint  when to save
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from pipelines.command_line import RunArguments, parse_with
from pipelines.config import CheckpointConfig, OptimisationConfig
from pipelines.vidtok_models import config_of, published_name
from vtok.config import require

LEAST_PATCHES = 32  # pixels a side that a PatchGAN needs to see


@dataclass
class VideoDataConfig:
    """
    Args:
        shards: folder that ``vtok-shards build`` wrote, or its address (``s3://``, ``hf://``, ``https://``, ...).
        root: instead of ``shards``: a folder of video files, in any depth.
        meta_path: with ``root``: a .csv with a column ``videos`` of paths in that folder; only those are used.
        frames: of a clip; what a shorter video lacks is its last frame again.
        fps: of a clip. A low rate shows much motion in few frames.
        height, width: of a clip, pixels.
        fit: ``crop`` or ``pad`` videos to that shape.
        crop: pixels a side of a square cut out of each clip at a drawn place, for more clips at the same cost; whole
            frames if omitted.
        decoder: video decoding library.
        workers: loader processes per rank; 0 decodes in the training process.
        max_bad_share: share of samples that may turn out unreadable before the run stops.
        cache_dir, cache_gb: where shards at an address are kept, and the most that they may take there.
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
    decoder: Literal["pyav", "decord"] = "pyav"
    workers: int = 2
    max_bad_share: float = 0.01
    cache_dir: str = "~/.cache/vtok/shards"
    cache_gb: float = 64.0

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of what the model is given."""
        return (self.crop, self.crop) if self.crop else (self.height, self.width)

    def __post_init__(self):
        require(self.frames >= 1 and self.fps > 0, "data.frames must be at least 1 and data.fps positive")
        require(
            self.crop is None or self.crop <= min(self.height, self.width),
            f"data.crop must be at most data.height and data.width, not {self.crop}",
        )
        require(self.workers >= 0, "data.workers must not be negative")
        require(0 <= self.max_bad_share <= 1, "data.max_bad_share must lie in 0..1")
        require(self.cache_gb > 0, "data.cache_gb must be positive")


@dataclass
class LossConfig:
    """
    Args:
        lpips_vgg, lpips_linear: local files of LPIPS's weights (see ``vtok.vidtok.losses.perceptual``); both or none.
        discriminator: looks at frames (``2d``), at space and time (``3d``), or there is ``none``.
        discriminator_start: steps without it.
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
    """The same for both engines, with other defaults."""

    max_grad_norm: float = 20.0
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    ema_decay: float | None = None


@dataclass
class VidTokRunConfig:
    """
    Args:
        model: ``name`` of a published VidTok, and the fields of ``VidTokConfig`` that differ from it, such as ``ch``.
        weights: .safetensors or published .ckpt to start from; random weights if omitted.
        fix_encoder: train the decoder only.
        seed: of every random draw.
    """

    model: dict[str, Any]
    train: VidTokTrainConfig
    weights: str | None = None
    fix_encoder: bool = False
    seed: int = 0
    data: VideoDataConfig = field(default_factory=VideoDataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self):
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
            f"this VidTok takes clips of {model.time_factor} k frames: set data.frames to 16, not {data.frames}",
        )
        require(
            not self.fix_encoder or self.weights is not None, "fix_encoder needs weights: a random encoder is no use"
        )
        require((data.shards is None) != (data.root is None), "set exactly one of data.shards and data.root")
        require(data.meta_path is None or data.root is not None, "data.meta_path goes with data.root")


def parse_vidtok_arguments(argv: list[str]) -> RunArguments[VidTokRunConfig]:
    """As :func:`pipelines.command_line.parse_run_arguments`; ``--config`` may be a published name too.

    Raises:
        ConfigError: unknown key (the nearest known one is named), wrong type, missing file.
    """
    argv = [word for arg in argv for word in (arg.split("=", 1) if arg.startswith("--config=") else [arg])]
    name = None
    for place, (option, value) in enumerate(zip(argv, argv[1:])):
        if option == "--config" and not Path(value).suffix:
            name = published_name(value)
            argv[place : place + 2] = ["--model.name", name]
    parser = ArgumentParser(prog="train_vidtok", exit_on_error=False, description="Train a VidTok with ZeRO-2.")
    arguments = parse_with(parser, VidTokRunConfig, argv, "zero2.json", "model.")
    return replace(arguments, preset=name) if name else arguments
