"""What a backbone tells the rest of the model."""

from typing import ClassVar

from torch import Tensor, nn

from vtok.config import VTokConfig
from vtok.weights import Part, ReadConfig


class FeatureExtractor(nn.Module):
    """A frozen backbone.

    ``uint8`` frames are normalised with the backbone's own mean and standard deviation. Floating-point frames count as
    normalised already.

    Attributes:
        width: d_v, the features' dimension.
        image_size: height and width of its frames, in pixels.
        temporal_patch: frames that it takes at once.
        projected: whether a published language model's own projector was trained on these features.
        in_language_space: whether the features are tokens of the language model already.
        levels: codes of each dimension, where the features are latents of an FSQ.
    """

    width: int
    image_size: int
    temporal_patch: int = 1
    projected: ClassVar[bool] = False
    in_language_space: ClassVar[bool] = False
    levels: int | None = None

    @classmethod
    def empty(cls, config: VTokConfig, read_config: ReadConfig) -> "FeatureExtractor":
        """The backbone without weights, on the current default device.

        Raises:
            ConfigError: the stored architecture is missing or is another model's.
        """
        raise NotImplementedError

    @staticmethod
    def part(config: VTokConfig) -> Part:
        """Where its weights lie; only asked where the config names some."""
        raise NotImplementedError

    def forward(self, *frames: Tensor) -> Tensor:
        """``temporal_patch`` tensors (n, 3, H, W) -> features of the last one's frames, (n, h, w, d_v)."""
        raise NotImplementedError
