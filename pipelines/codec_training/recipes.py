"""What differs between the codecs: the model, what it reads of a clip, its losses, and its files."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from pipelines.vidtok_training.config import VideoDataConfig
from vtok.config import require
from vtok.motion_codec import MotionCodec, codec_config, motion_vectors
from vtok.motion_codec import folder as motion_codec_folder
from vtok.omnitokenizer import OmniTokenizer, checkpoint, omni_config
from vtok.omnitokenizer.model import initialise, to_model
from vtok.vidtok.metrics import psnr
from vtok.weights.own_folder import write_config

Trainable = MotionCodec | OmniTokenizer


class Recipe(ABC):
    """A codec to train.

    Attributes:
        losses: The figures that the model's ``training_losses`` has; ``loss`` is minimised.
        weights: Name of the file of its weights.
    """

    losses: tuple[str, ...]
    weights: str

    @abstractmethod
    def __init__(self, model: dict[str, Any], data: VideoDataConfig):
        """Checks the configuration; raises ConfigError if model and data do not fit."""

    @abstractmethod
    def build(self) -> Trainable:
        """Builds the model with random weights."""

    @property
    @abstractmethod
    def read(self) -> Callable[[Tensor], Tensor]:
        """Turns a clip's frames (T, 3, H, W) ``uint8`` into the model's input. Loader processes call it."""

    def scores(self, model: Any, value: Tensor) -> dict[str, float]:
        """Returns what a validation says of one clip's input (1, ...): the loss of reconstruction, and more."""
        return {"rec_loss": model.training_losses(value)["loss_rec"].item()}

    @abstractmethod
    def describe(self, folder: Path) -> None:
        """Writes the model's sizes into its folder, beside its weights."""


class MotionCodecRecipe(Recipe):
    """A motion codec, trained on the motion vectors of clips."""

    losses = ("loss", "loss_rec", "loss_codes", "loss_usage", "codes_used")
    weights = motion_codec_folder.WEIGHTS

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
        write_config(self.config, motion_codec_folder.KIND, folder)


class OmniTokenizerRecipe(Recipe):
    """An OmniTokenizer, trained on clips and on their first frames as images."""

    losses = ("loss", "loss_rec", "loss_image", "loss_codes", "loss_usage", "codes_used")
    weights = checkpoint.WEIGHTS

    def __init__(self, model: dict[str, Any], data: VideoDataConfig):
        self.config = omni_config({"resolution": data.sides[0]} | model)
        frames, side = self.config.temporal_patch_size, self.config.resolution
        require(
            data.frames % frames == 1, f"an OmniTokenizer takes {frames} k + 1 frames, not data.frames {data.frames}"
        )
        require(
            data.sides == (side, side),
            f"this OmniTokenizer takes squares of {side} pixels: set data.height and data.width, or data.crop, to that",
        )

    def build(self) -> OmniTokenizer:
        model = OmniTokenizer(self.config)
        initialise(model)
        return model

    def scores(self, model: OmniTokenizer, value: Tensor) -> dict[str, float]:
        """Adds the PSNR of the clip's frames, in dB."""
        _, vectors = model(value)
        pictures = [(video[0].float() + 0.5).clamp(0, 1).transpose(0, 1) for video in (value, model.decode(vectors))]
        return super().scores(model, value) | {"psnr": psnr(*pictures).mean().item()}

    @property
    def read(self) -> Callable[[Tensor], Tensor]:
        return to_model

    def describe(self, folder: Path) -> None:
        write_config(self.config, checkpoint.KIND, folder)


# Another codec is a class above and a line here.
RECIPES: dict[str, type[Recipe]] = {"motion_codec": MotionCodecRecipe, "omnitokenizer": OmniTokenizerRecipe}
