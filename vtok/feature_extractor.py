"""The frozen feature extractor ``F``: one frame in, a grid of features out (paper, section 3.1).

The same weights serve the key frame and the residuals. All members share one interface: ``width`` (d_v),
``image_size``, ``temporal_patch`` (frames it takes at once), and ``forward`` of so many (n, 3, H, W), the last of which
is the frame that is meant -> (n, h, w, d_v). ``uint8`` frames are normalised here with the backbone's own mean and
standard deviation; floating-point frames are taken as normalised already.
"""

import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from vtok.config import ConfigError, VTokConfig, require
from vtok.materialise import materialise, whole
from vtok.pixels import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, normalise
from vtok.qwen_video import QwenFeatures, qwen_tower
from vtok.vidtok.encoder import Encoder
from vtok.vidtok.latent_space import VidTokFeatures, vidtok_config
from vtok.weights import DIFFUSERS_FILES, TRANSFORMERS_FILES, Location, Part, ReadConfig

CLIP_L_336 = dict(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
    patch_size=14, projection_dim=768,
)  # fmt: skip

# Channels of VGG19's convolutions, "M" a 2x2 max pool (Simonyan & Zisserman, 2015, configuration E).
VGG19_LAYOUT = [64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M"]


class CLIPFeatureExtractor(nn.Module):
    """CLIP's patch features at hidden layer -2, without CLS, as LLaVA takes them; the last layer is never run."""

    temporal_patch = 1

    def __init__(self, clip: CLIPVisionModel):
        super().__init__()
        self.clip = getattr(clip, "vision_model", clip)  # nested in the first releases of transformers 5
        self.width = clip.config.hidden_size
        self.image_size = clip.config.image_size
        self.grid = clip.config.image_size // clip.config.patch_size

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, image_size, image_size) -> (n, grid, grid, d_v)."""
        pixels = normalise(pixels, CLIP_MEAN, CLIP_STD, self.clip.pre_layrnorm.weight.dtype)
        hidden = self.clip.pre_layrnorm(self.clip.embeddings(pixels))
        for layer in self.clip.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:, 1:].unflatten(1, (self.grid, self.grid))


class VGG19FeatureExtractor(nn.Module):
    """VGG19 up to and including one layer; keys ``features.N.*`` are torchvision's, whose checkpoint loads."""

    image_size, temporal_patch = 224, 1

    def __init__(self, layer_index: int):
        super().__init__()
        self.features, self.width = vgg19_layers(layer_index)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) -> (n, h, w, d_v)."""
        dtype = self.features[0].weight.dtype
        return self.features(normalise(pixels, IMAGENET_MEAN, IMAGENET_STD, dtype)).permute(0, 2, 3, 1)


def vgg19_layers(layer_index: int) -> tuple[nn.Sequential, int]:
    """VGG19's ``features[: layer_index + 1]`` and the channels they end with."""
    layers, channels = [], 3
    for entry in VGG19_LAYOUT:
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


def build_feature_extractor(config: VTokConfig) -> nn.Module:
    """``F`` with the weights the config names, frozen, in fp32 on the CPU.

    Raises:
        ConfigError: the named weights are missing or do not fit.
    """
    warn_if_random(config)
    return materialise(empty_feature_extractor(config), extractor_parts(config), whole())


def warn_if_random(config: VTokConfig) -> None:
    if config.weights is None:
        print(f"vtok: {config.backbone} has random weights (set tokeniser.weights to load some)", file=sys.stderr)


def extractor_parts(config: VTokConfig) -> list[Part]:
    """``F``'s weights: VGG19's, a VidTok's encoder, CLIP's vision half or LLaVA's tower, Qwen2.5-VL's with its merger;
    none where they are random.
    """
    if config.weights is None:
        return []
    if config.backbone == "clip":
        towers = ("vision_tower.vision_model.", "model.vision_tower.vision_model.", "model.vision_tower.")
        return [Part(clip_location(config), TRANSFORMERS_FILES, {"clip.": ("vision_model.", "", *towers)})]
    if config.backbone == "vidtok":
        return [Part(vidtok_location(config), DIFFUSERS_FILES, {"encoder.": ("encoder.",)})]
    if config.backbone == "qwen2.5-vl":
        return [Part(qwen_location(config), TRANSFORMERS_FILES, {"tower.": ("model.visual.", "visual.")})]
    file = Path(config.weights)
    if not file.is_file():
        raise ConfigError(f"tokeniser.weights: no such file: {file} (torchvision's vgg19 checkpoint)")
    location = Location("VGG19", "tokeniser.weights", str(file.parent))
    return [Part(location, (file.name,), {"features.": ("features.",)})]


def clip_location(config: VTokConfig) -> Location:
    return Location("CLIP", "tokeniser.weights", config.weights, config.revision)


def vidtok_location(config: VTokConfig) -> Location:
    return Location("VidTok", "tokeniser.weights", config.weights, config.revision)


def qwen_location(config: VTokConfig) -> Location:
    return Location("Qwen2.5-VL", "tokeniser.weights", config.weights, config.revision)


def empty_feature_extractor(config: VTokConfig, read_config: ReadConfig = Location.read_json) -> nn.Module:
    """``F``, frozen: on the meta device, or with random values where the config names no weights.

    Args:
        read_config: reads CLIP's, VidTok's or Qwen2.5-VL's architecture.
    """
    with nullcontext() if config.weights is None else torch.device("meta"):
        if config.backbone == "vgg19":
            extractor = VGG19FeatureExtractor(config.vgg_layer_index)
        elif config.backbone == "vidtok":
            vidtok = vidtok_config(read_config(vidtok_location(config), "config.json"))
            extractor = VidTokFeatures(vidtok, Encoder(vidtok), config.spatial_grid_size)
        elif config.backbone == "qwen2.5-vl":
            require(config.weights is not None, "the backbone qwen2.5-vl needs tokeniser.weights: those of the model")
            location = qwen_location(config)
            tower = qwen_tower(read_config(location, "config.json"), location)
            extractor = QwenFeatures(tower, config.spatial_grid_size)
            require(
                config.token_dim == extractor.width,
                f"tokeniser.token_dim must be the width of Qwen2.5-VL's own tokens, {extractor.width}",
            )
        else:
            extractor = CLIPFeatureExtractor(CLIPVisionModel(clip_architecture(config, read_config)))
    return extractor.requires_grad_(False).eval()


def clip_architecture(config: VTokConfig, read_config: ReadConfig) -> CLIPVisionConfig:
    if config.weights is None:
        return CLIPVisionConfig(**CLIP_L_336 | (config.clip_config or {}))
    require(not config.clip_config, "tokeniser.clip_config is for random weights; remove it or tokeniser.weights")
    location = clip_location(config)
    stored = read_config(location, "config.json")
    stored = stored.get("vision_config", stored)
    if (kind := stored.get("model_type")) != "clip_vision_model":
        raise location.error(f"its config.json is of a {kind!r}")
    return CLIPVisionConfig.from_dict(stored)
