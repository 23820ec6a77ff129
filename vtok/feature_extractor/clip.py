"""CLIP as the backbone: patch features at hidden layer -2, without CLS, as LLaVA takes them."""

from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from vtok.config import VTokConfig, require
from vtok.feature_extractor.base import FeatureExtractor
from vtok.feature_extractor.pixels import CLIP_MEAN, CLIP_STD, normalise
from vtok.weights import TRANSFORMERS_FILES, Location, Part, ReadConfig

CLIP_L_336 = dict(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
    patch_size=14, projection_dim=768,
)  # fmt: skip

# Where CLIP's vision half stands in its own checkpoint, and in LLaVA's.
IN_LLAVA = ("vision_tower.vision_model.", "model.vision_tower.vision_model.", "model.vision_tower.")
PREFIXES = ("vision_model.", "", *IN_LLAVA)


class CLIPFeatureExtractor(FeatureExtractor):
    """CLIP's vision tower; its last layer never runs."""

    projected = True

    def __init__(self, clip: CLIPVisionModel):
        super().__init__()
        self.clip = getattr(clip, "vision_model", clip)  # nested in the first releases of transformers 5
        self.width = clip.config.hidden_size
        self.image_size = clip.config.image_size
        self.grid = clip.config.image_size // clip.config.patch_size

    @classmethod
    def empty(cls, config: VTokConfig, read_config: ReadConfig) -> "CLIPFeatureExtractor":
        return cls(CLIPVisionModel(architecture(config, read_config)))

    @staticmethod
    def part(config: VTokConfig) -> Part:
        return Part(location(config), TRANSFORMERS_FILES, {"clip.": PREFIXES})

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, image_size, image_size) -> (n, grid, grid, d_v)."""
        pixels = normalise(pixels, CLIP_MEAN, CLIP_STD, self.clip.pre_layrnorm.weight.dtype)
        hidden = self.clip.pre_layrnorm(self.clip.embeddings(pixels))
        for layer in self.clip.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:, 1:].unflatten(1, (self.grid, self.grid))


def location(config: VTokConfig) -> Location:
    return Location("CLIP", "tokeniser.weights", config.weights, config.revision)


def architecture(config: VTokConfig, read_config: ReadConfig) -> CLIPVisionConfig:
    if config.weights is None:
        return CLIPVisionConfig(**CLIP_L_336 | (config.clip_config or {}))
    require(not config.clip_config, "tokeniser.clip_config is for random weights; remove it or tokeniser.weights")
    where = location(config)
    stored = read_config(where, "config.json")
    stored = stored.get("vision_config", stored)
    if (kind := stored.get("model_type")) != "clip_vision_model":
        raise where.error(f"its config.json is of a {kind!r}")
    return CLIPVisionConfig.from_dict(stored)
