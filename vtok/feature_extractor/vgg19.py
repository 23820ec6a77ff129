"""VGG19 as the backbone: the features of one layer. Its layout is torchvision's, so that checkpoint loads."""

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from vtok.config import ConfigError, VTokConfig
from vtok.feature_extractor.base import FeatureExtractor
from vtok.feature_extractor.pixels import IMAGENET_MEAN, IMAGENET_STD, normalise
from vtok.weights import Location, Part, ReadConfig

# Channels of VGG19's convolutions; "M" is a 2x2 max pool (Simonyan & Zisserman, 2015, configuration E).
LAYOUT: list[int | Literal["M"]] = [
    64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M",
]  # fmt: skip


class VGG19FeatureExtractor(FeatureExtractor):
    """VGG19 up to and including one layer. Its keys ``features.N.*`` are torchvision's."""

    image_size = 224

    def __init__(self, layer_index: int):
        super().__init__()
        self.features, self.width = layers_up_to(layer_index)

    @classmethod
    def empty(cls, config: VTokConfig, read_config: ReadConfig) -> "VGG19FeatureExtractor":
        return cls(config.vgg_layer_index)

    @staticmethod
    def part(config: VTokConfig) -> Part:
        file = Path(config.named_weights)
        if not file.is_file():
            raise ConfigError(f"tokeniser.weights: no such file: {file} (torchvision's vgg19 checkpoint)")
        location = Location("VGG19", "tokeniser.weights", str(file.parent))
        return Part(location, (file.name,), {"features.": ("features.",)}, cut=True)

    def forward(self, *frames: Tensor) -> Tensor:
        """Encodes frames (n, 3, H, W) to (n, h, w, d_v)."""
        (images,) = frames
        dtype = next(self.features.parameters()).dtype
        return self.features(normalise(images, IMAGENET_MEAN, IMAGENET_STD, dtype)).permute(0, 2, 3, 1)


def layers_up_to(layer_index: int) -> tuple[nn.Sequential, int]:
    """Builds VGG19's ``features[: layer_index + 1]``. Returns them and their number of output channels.

    Raises:
        ConfigError: There is no such layer.
    """
    layers: list[nn.Module] = []
    channels = 3
    for entry in LAYOUT:
        if entry == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU()]
            channels = entry
    if not 0 <= layer_index < len(layers):
        raise ConfigError(f"tokeniser.vgg_layer_index must lie in 0..{len(layers) - 1}, not {layer_index}")
    kept = layers[: layer_index + 1]
    width = next(layer.out_channels for layer in reversed(kept) if isinstance(layer, nn.Conv2d))
    return nn.Sequential(*kept), width
