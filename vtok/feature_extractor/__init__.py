"""The frozen feature extractor ``F``: turns a frame into a grid of features (paper, section 3.2).

The key frame and the residuals use the same weights. To add a backbone, write a subclass of
:class:`vtok.feature_extractor.base.FeatureExtractor` in a file here and enter it in ``BACKBONES``.
"""

import sys
from contextlib import nullcontext

import torch

from vtok.config import VTokConfig, member
from vtok.feature_extractor.base import FeatureExtractor
from vtok.feature_extractor.clip import CLIP_L_336, CLIPFeatureExtractor
from vtok.feature_extractor.omnitokenizer import OmniTokenizerFeatures
from vtok.feature_extractor.qwen25_vl import QwenFeatures
from vtok.feature_extractor.vgg19 import VGG19FeatureExtractor
from vtok.feature_extractor.vidtok import VidTokFeatures
from vtok.motion_codec.folder import codec_part, empty_motion_tokens
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
    "omnitokenizer": OmniTokenizerFeatures,
}


def backbone(config: VTokConfig) -> type[FeatureExtractor]:
    """Returns the class of ``config.backbone``."""
    return member(BACKBONES, config.backbone, "tokeniser.backbone")


def build_feature_extractor(config: VTokConfig) -> FeatureExtractor:
    """Builds ``F`` with the weights that the configuration names: frozen, in fp32, on the CPU.

    Raises:
        ConfigError: The named weights are missing or do not fit.
    """
    warn_if_random(config)
    return materialise(empty_feature_extractor(config), extractor_parts(config).values(), whole())


def warn_if_random(config: VTokConfig) -> None:
    """Warns on stderr if the backbone or the motion codec has random weights."""
    if config.weights is None:
        print(f"vtok: {config.backbone} has random weights (set tokeniser.weights to load some)", file=sys.stderr)
    if config.reads_vectors and config.codec is None:
        print("vtok: the motion codec has random weights (set tokeniser.codec to a trained one)", file=sys.stderr)


def extractor_parts(config: VTokConfig) -> dict[str, Part]:
    """Returns where the weights of ``F`` lie, by part: ``feature_extractor`` and, if the strategy has one,
    ``motion_codec``. Random ones are left out.
    """
    parts = {} if config.weights is None else {"feature_extractor": backbone(config).part(config)}
    return parts | ({} if config.codec is None else {"motion_codec": codec_part(config.codec).below("motion_codec.")})


def empty_feature_extractor(config: VTokConfig, read_config: ReadConfig = Location.read_json) -> FeatureExtractor:
    """Builds ``F``, frozen, on the meta device; with random values if the configuration names no weights.

    Args:
        config: The settings.
        read_config: Reads the architecture that is stored beside the weights.

    Raises:
        ConfigError: The architecture is missing or is another model's.
    """
    with nullcontext() if config.weights is None else torch.device("meta"):
        extractor = backbone(config).empty(config, read_config)
    if config.reads_vectors:
        extractor.motion_codec = empty_motion_tokens(config, read_config)
    return extractor.requires_grad_(False).eval()
