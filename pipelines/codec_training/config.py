"""The configuration of a codec's training. It has typed sections; the command line overrides the YAML file."""

import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from jsonargparse import ArgumentParser

from pipelines.cli.parsing import RunArguments, parse_with
from pipelines.config import CheckpointConfig, OptimisationConfig, Trackers, require_seed
from pipelines.vidtok_training.config import HeldOutVideosConfig, VideoDataConfig
from vtok.config import require


@dataclass
class CodecTrainConfig(OptimisationConfig):
    """Batch, steps and optimiser; some defaults differ from those of VTok's training."""

    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    ema_decay: float | None = None


@dataclass
class CodecRunConfig:
    """The configuration of a run.

    Args:
        train: Batch, steps and optimiser.
        model: Sizes of the codec, if they are not its usual ones.
        seed: Seed of every random draw.
        track: What shows the figures. All but TensorBoard are packages to install.
        data: The videos, and the clips cut out of them.
        checkpoint: When to save, the codec's own folder too.
        validation: The held-out videos.

    Raises:
        ConfigError: Values contradict each other.
    """

    train: CodecTrainConfig
    model: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    track: list[Trackers] = field(default_factory=lambda: ["tensorboard"])
    data: VideoDataConfig = field(default_factory=VideoDataConfig)
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(every=100))
    validation: HeldOutVideosConfig = field(default_factory=HeldOutVideosConfig)

    def __post_init__(self):
        require_seed(self.seed)
        require(
            self.checkpoint.keep != "best", "a codec's run keeps no best checkpoint: set checkpoint.keep to a number"
        )
        data = self.data
        require((data.shards is None) != (data.root is None), "set exactly one of data.shards and data.root")
        require(data.meta_path is None or data.root is not None, "data.meta_path goes with data.root")


def parse_codec_arguments(program: str, description: str, argv: list[str] | None) -> RunArguments[CodecRunConfig]:
    """Parses the command line of a program that trains a codec.

    Args:
        program: Its name.
        description: What it does.
        argv: The words of the command line; see :func:`pipelines.cli.parsing.parse_run_arguments`.

    Raises:
        ConfigError: A key is unknown (the message names the nearest), a value is wrong, or the file does not exist.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = ArgumentParser(prog=program, print_config=None, exit_on_error=False, description=description)
    return parse_with(parser, CodecRunConfig, argv, "zero2.json", "model.")
