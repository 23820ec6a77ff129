"""What differs between the codecs: the model, what it reads of a clip, its losses, and its files."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipelines.vidtok_training.config import VideoDataConfig
from vtok.config import require
from vtok.motion_codec import MotionCodec, codec_config, motion_vectors
from vtok.motion_codec.folder import WEIGHTS, write_config


class Recipe(ABC):
    """A codec to train.

    Attributes:
        losses: The figures that the model returns for a micro-batch; ``loss`` is minimised.
        weights: Name of the file of its weights.
    """

    losses: tuple[str, ...]
    weights: str

    @abstractmethod
    def __init__(self, model: dict[str, Any], data: VideoDataConfig):
        """Checks the configuration; raises ConfigError if model and data do not fit."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Builds the model with random weights. Called with a micro-batch's input, it returns the losses."""

    @property
    @abstractmethod
    def read(self) -> Callable[[Tensor], Tensor]:
        """Turns a clip's frames (T, 3, H, W) ``uint8`` into the model's input. Loader processes call it."""

    @abstractmethod
    def describe(self, folder: Path) -> None:
        """Writes the model's sizes into its folder, beside its weights."""


class MotionCodecRecipe(Recipe):
    """A motion codec, trained on the motion vectors of clips."""

    losses = ("loss", "loss_rec", "loss_codes", "loss_usage", "codes_used")
    weights = WEIGHTS

    def __init__(self, model: dict[str, Any], data: VideoDataConfig):
        self.config = codec_config(model)
        require(
            data.frames == self.config.frames + 1,
            f"a motion codec for clips of {self.config.frames} frames is trained on the vectors between "
            f"{self.config.frames + 1} frames: set data.frames to that, not {data.frames}",
        )

    def build(self) -> MotionCodec:
        return MotionCodec(self.config)

    @property
    def read(self) -> Callable[[Tensor], Tensor]:
        return partial(motion_vectors, height=self.config.height, width=self.config.width)

    def describe(self, folder: Path) -> None:
        write_config(self.config, folder)
