"""CLIP as the backbone: patch features of hidden layer -2 without CLS, which LLaVA uses too."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedConfig
from transformers.activations import ACT2FN

from vtok.config import VTokConfig, member, require, require_sizes
from vtok.feature_extractor.base import FeatureExtractor, backbone_location
from vtok.feature_extractor.pixels import CLIP_MEAN, CLIP_STD, normalise, side_of
from vtok.weights import TRANSFORMERS_FILES, Part, ReadConfig

SETTING = "tokeniser.clip_config"
CLIP_L_336 = dict(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
    patch_size=14, projection_dim=768,
)  # fmt: skip

# Prefixes of CLIP's vision tower in LLaVA's checkpoints and in its own.
IN_LLAVA = ("vision_tower.vision_model.", "model.vision_tower.vision_model.", "model.vision_tower.")
PREFIXES = ("vision_model.", "", *IN_LLAVA)


class CLIPFeatureExtractor(FeatureExtractor):
    """CLIP's vision tower. Its last layer never runs."""

    projected = True

    def __init__(self, clip: CLIPVisionModel):
        super().__init__()
        self.clip = getattr(clip, "vision_model", clip)  # nested in the first releases of transformers 5
        self.width = clip.config.hidden_size
        self.image_size = side_of(clip.config.image_size)
        self.grid = self.image_size // side_of(clip.config.patch_size)

    @classmethod
    def empty(cls, config: VTokConfig, read_config: ReadConfig) -> "CLIPFeatureExtractor":
        if config.weights is None:
            return cls(CLIPVisionModel(random_architecture(config.clip_config or {})))
        stored, where = stored_config(config, read_config), backbone_location("CLIP", config)
        with where.building("config.json"):
            clip = CLIPVisionModel(CLIPVisionConfig.from_dict(stored))
        return cls(clip)

    @staticmethod
    def part(config: VTokConfig) -> Part:
        return Part(backbone_location("CLIP", config), TRANSFORMERS_FILES, {"clip.": PREFIXES})

    def forward(self, *frames: Tensor) -> Tensor:
        """Encodes frames (n, 3, image_size, image_size) to (n, grid, grid, d_v)."""
        (images,) = frames
        pixels = normalise(images, CLIP_MEAN, CLIP_STD, self.clip.pre_layrnorm.weight.dtype)
        hidden = self.clip.pre_layrnorm(self.clip.embeddings(pixels))
        for layer in self.clip.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:, 1:].unflatten(1, (self.grid, self.grid))


def random_architecture(clip_config: Mapping[str, Any]) -> CLIPVisionConfig:
    """Returns CLIP-L/336's architecture with the given changes.

    Raises:
        ConfigError: A setting is unknown or has an impossible value.
    """
    known = CLIPVisionConfig().to_dict()
    others = {*PreTrainedConfig().to_dict(), "num_channels"}  # frames have three
    own = {name: value for name, value in known.items() if name not in others}
    require_sizes(SETTING, clip_config, own)
    values = own | CLIP_L_336 | dict(clip_config)
    member(ACT2FN, values["hidden_act"], f"{SETTING}: hidden_act")
    width, heads = values["hidden_size"], values["num_attention_heads"]
    require(width % heads == 0, f"{SETTING}: num_attention_heads {heads} does not divide hidden_size {width}")
    side, patch = values["image_size"], values["patch_size"]
    require(side >= patch, f"{SETTING}: image_size {side} is smaller than patch_size {patch}")
    return CLIPVisionConfig(**values)


def stored_config(config: VTokConfig, read_config: ReadConfig) -> dict[str, Any]:
    """Returns the architecture of the stored vision tower.

    Raises:
        ConfigError: It is missing or another model's, or the configuration has one too.
    """
    require(not config.clip_config, f"{SETTING} is for random weights; remove it or tokeniser.weights")
    where = backbone_location("CLIP", config)
    stored = read_config(where, "config.json")
    where.require_plain(stored)
    stored = stored.get("vision_config", stored)
    if not isinstance(stored, dict):
        raise where.error(f"the vision_config in its config.json should be an object, not {stored!r}")
    if (kind := stored.get("model_type")) != "clip_vision_model":
        raise where.error(f"its config.json is of a {kind!r}")
    return stored
