"""Qwen2.5-VL's vision tower as the backbone, and videos in the form it takes.

transformers' own video processor needs torchvision, which this project does not depend on.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from vtok.config import VTokConfig, require
from vtok.devices import to_device
from vtok.feature_extractor.base import FeatureExtractor, backbone_location
from vtok.feature_extractor.pixels import CLIP_MEAN, CLIP_STD, normalise, side_of
from vtok.weights import TRANSFORMERS_FILES, Location, Part, ReadConfig

NAME = "Qwen2.5-VL"


class QwenVideo(NamedTuple):
    """A video in patches.

    Attributes:
        patches: (t * h * w, C * temporal_patch * patch * patch). Patches that merge into one token are adjacent.
        grid: (1, 3), t, h and w before merging.
    """

    patches: Tensor
    grid: Tensor

    def tokens(self, config: Qwen2_5_VLVisionConfig) -> int:
        """Returns the number of visual tokens in the language model, after merging."""
        return len(self.patches) // config.spatial_merge_size**2


def fit(frames: Tensor, config: Qwen2_5_VLVisionConfig, min_pixels: int, max_pixels: int) -> Tensor:
    """Resizes ``uint8`` frames (T, 3, H, W) to whole merged patches and to a number of pixels between the limits.

    The aspect ratio changes by at most the rounding to patches.
    """
    height, width = frames.shape[-2:]
    factor = side_of(config.patch_size) * config.spatial_merge_size
    size = smart_resize(height, width, factor, min_pixels, max_pixels)
    return F.interpolate(frames, size, mode="bicubic", antialias=True, align_corners=False)


def patchify(frames: Tensor, config: Qwen2_5_VLVisionConfig, dtype: torch.dtype = torch.float32) -> QwenVideo:
    """Normalises ``uint8`` frames (T, 3, H, W) and cuts them into patches. H and W are whole merged patches.

    The last frame repeats until the last temporal patch is full.
    """
    step, side, merge = side_of(config.temporal_patch_size), side_of(config.patch_size), config.spatial_merge_size
    frames = torch.cat([frames, frames[-1:].expand(-len(frames) % step, -1, -1, -1)])
    pixels = normalise(frames, CLIP_MEAN, CLIP_STD, dtype)
    t, h, w = len(frames) // step, frames.shape[2] // side, frames.shape[3] // side
    blocks = pixels.reshape(t, step, 3, h // merge, merge, side, w // merge, merge, side)
    patches = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, -1)
    return QwenVideo(patches, to_device(torch.tensor([[t, h, w]]), frames.device))


class QwenFeatures(FeatureExtractor):
    """The tower and its merger. The features are the language model's own tokens.

    A temporal patch is two frames, and the tower sees each patch alone. The image size gives a patch grid x grid
    tokens, so the key frame keeps all of its tokens.
    """

    projected = in_language_space = True

    def __init__(self, tower: Qwen2_5_VisionTransformerPretrainedModel, grid_size: int):
        super().__init__()
        config = tower.config
        self.tower, self.grid = tower, grid_size
        self.patch = side_of(config.patch_size)
        self.width = config.out_hidden_size
        self.image_size = grid_size * self.patch * config.spatial_merge_size
        self.temporal_patch = side_of(config.temporal_patch_size)

    @classmethod
    def empty(cls, config: VTokConfig, read_config: ReadConfig) -> "QwenFeatures":
        where = backbone_location(NAME, config)
        extractor = cls(qwen_tower(read_config(where, "config.json"), where), config.spatial_grid_size)
        require(
            config.token_dim == extractor.width,
            f"tokeniser.token_dim must be the width of Qwen2.5-VL's own tokens, {extractor.width}",
        )
        return extractor

    @staticmethod
    def part(config: VTokConfig) -> Part:
        return Part(backbone_location(NAME, config), TRANSFORMERS_FILES, {"tower.": ("model.visual.", "visual.")})

    def forward(self, *frames: Tensor) -> Tensor:
        """Encodes both frames of n patches, (n, 3, image_size, image_size) each, to (n, grid, grid, d_v)."""
        config = self.tower.config
        pairs = torch.stack(frames, dim=1).flatten(0, 1)
        patches = patchify(pairs, config, self.tower.patch_embed.proj.weight.dtype).patches
        side = self.grid * config.spatial_merge_size
        # The tower reads lengths from the shape. On the CPU this neither waits for a GPU nor fails on "meta".
        shape = torch.tensor([[len(frames[0]), side, side]])
        windows, window_ends = get_vision_window_index(shape, config.spatial_merge_size, config.window_size, self.patch)
        merged = self.tower(
            patches,
            grid_thw=shape,
            position_ids=to_device(get_vision_position_ids(shape, config.spatial_merge_size), patches.device),
            window_index=to_device(windows, patches.device),
            cu_window_seqlens=window_ends,
        ).pooler_output
        return merged.view(-1, self.grid, self.grid, self.width)


def qwen_tower(stored: dict[str, Any], where: Location) -> Qwen2_5_VisionTransformerPretrainedModel:
    """Builds the tower that a Qwen2.5-VL's ``config.json`` describes.

    Raises:
        ConfigError: The file is another model's, or cannot be used.
    """
    if (kind := stored.get("model_type")) != Qwen2_5_VLConfig.model_type:
        raise where.error(f"its config.json is of a {kind!r}, not a {Qwen2_5_VLConfig.model_type!r}")
    where.require_plain(stored)
    with where.building("config.json"):
        vision = Qwen2_5_VLConfig.from_dict(stored).vision_config
        assert isinstance(vision, Qwen2_5_VLVisionConfig)
        return Qwen2_5_VisionTransformerPretrainedModel(vision)
