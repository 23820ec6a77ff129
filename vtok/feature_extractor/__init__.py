"""The frozen feature extractor ``F``: frames in, a grid of features out (paper, section 3.2).

The same weights serve the key frame and the residuals. To add a backbone, write its file (a class of
:class:`vtok.feature_extractor.base.FeatureExtractor`) and enter it in ``BACKBONES``.
"""

import sys
from contextlib import nullcontext

import torch

from vtok.config import VTokConfig
from vtok.feature_extractor.base import FeatureExtractor
from vtok.feature_extractor.clip import CLIP_L_336, CLIPFeatureExtractor
from vtok.feature_extractor.qwen25_vl import QwenFeatures
from vtok.feature_extractor.vgg19 import VGG19FeatureExtractor
from vtok.feature_extractor.vidtok import VidTokFeatures
from vtok.weights import Location, Part, ReadConfig
from vtok.weights.materialise import materialise, whole

__all__ = [
    "CLIP_L_336", "CLIPFeatureExtractor", "FeatureExtractor", "VGG19FeatureExtractor", "build_feature_extractor",
    "empty_feature_extractor", "extractor_parts", "warn_if_random",
]  # fmt: skip

BACKBONES: dict[str, type[FeatureExtractor]] = {
    "clip": CLIPFeatureExtractor,
    "vgg19": VGG19FeatureExtractor,
    "vidtok": VidTokFeatures,
    "qwen2.5-vl": QwenFeatures,
}


def build_feature_extractor(config: VTokConfig) -> FeatureExtractor:
    """``F`` with the weights that the config names, frozen, in fp32 on the CPU.

    Raises:
        ConfigError: the named weights are missing or do not fit.
    """
    warn_if_random(config)
    return materialise(empty_feature_extractor(config), extractor_parts(config), whole())


def warn_if_random(config: VTokConfig) -> None:
    """Say on stderr that the backbone has random weights, if it has."""
    if config.weights is None:
        print(f"vtok: {config.backbone} has random weights (set tokeniser.weights to load some)", file=sys.stderr)


def extractor_parts(config: VTokConfig) -> list[Part]:
    """Where ``F``'s weights lie; empty where they are random."""
    return [] if config.weights is None else [BACKBONES[config.backbone].part(config)]


def empty_feature_extractor(config: VTokConfig, read_config: ReadConfig = Location.read_json) -> FeatureExtractor:
    """``F``, frozen: on the meta device, or with random values where the config names no weights.

    Args:
        read_config: reads the architecture that is stored beside the weights.

    Raises:
        ConfigError: the architecture is missing or is another model's.
    """
    with nullcontext() if config.weights is None else torch.device("meta"):
        extractor = BACKBONES[config.backbone].empty(config, read_config)
    return extractor.requires_grad_(False).eval()
