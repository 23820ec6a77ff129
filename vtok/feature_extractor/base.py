"""The interface of a backbone."""

from typing import ClassVar

from torch import Tensor, nn

from vtok.config import VTokConfig
from vtok.motion_codec.model import MotionTokens
from vtok.weights import Location, Part, ReadConfig


class FeatureExtractor(nn.Module):
    """A frozen backbone.

    It normalises ``uint8`` frames with its own mean and standard deviation. Floating-point frames must be normalised.

    Attributes:
        width: d_v, the width of the features.
        image_size: Height and width of its frames, in pixels.
        temporal_patch: Frames that it takes at once.
        projected: Whether a published language model's projector was trained on these features.
        in_language_space: Whether the features are tokens of the language model.
        levels: Codes of each dimension, if the features are latents of an FSQ.
        motion_codec: The frozen codec of motion vectors, for the strategy ``video-lavit``.
    """

    width: int
    image_size: int
    temporal_patch: int = 1
    projected: ClassVar[bool] = False
    in_language_space: ClassVar[bool] = False
    levels: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.motion_codec: MotionTokens | None = None

    @classmethod
    def empty(cls, config: VTokConfig, read_config: ReadConfig) -> "FeatureExtractor":
        """Builds the backbone without its weights, on the current default device.

        Raises:
            ConfigError: The stored architecture is missing or is another model's.
        """
        raise NotImplementedError

    @staticmethod
    def part(config: VTokConfig) -> Part:
        """Returns where its weights lie. Only called if the configuration names weights."""
        raise NotImplementedError

    def forward(self, *frames: Tensor) -> Tensor:
        """Encodes ``temporal_patch`` tensors (n, 3, H, W) to features (n, h, w, d_v) of the last one's frames."""
        raise NotImplementedError


def backbone_location(what: str, config: VTokConfig) -> Location:
    """Returns the folder or repository that ``config.weights`` names.

    Raises:
        ConfigError: It names none.
    """
    return Location(what, "tokeniser.weights", config.named_weights, config.revision)
