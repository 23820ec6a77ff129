"""Videos as Qwen2.5-VL's vision tower takes them, without torchvision, which transformers' video processor needs."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from vtok.feature_extractor import CLIP_MEAN, CLIP_STD, normalise


class QwenVideo(NamedTuple):
    """A video in patches.

    Attributes:
        patches: (t * h * w, C * temporal_patch * patch * patch), those that are merged into one token side by side.
        grid: (1, 3), t, h and w before merging.
    """

    patches: Tensor
    grid: Tensor

    def tokens(self, config: Qwen2_5_VLVisionConfig) -> int:
        """Visual tokens in the language model, after merging."""
        return len(self.patches) // config.spatial_merge_size**2


def fit(frames: Tensor, config: Qwen2_5_VLVisionConfig, min_pixels: int, max_pixels: int) -> Tensor:
    """Frames (T, 3, H, W) ``uint8`` resized to whole merged patches and to so many pixels, their aspect kept nearly."""
    factor = config.patch_size * config.spatial_merge_size
    size = smart_resize(*frames.shape[-2:], factor, min_pixels, max_pixels)
    return F.interpolate(frames, size, mode="bicubic", antialias=True, align_corners=False)


def patchify(frames: Tensor, config: Qwen2_5_VLVisionConfig, dtype: torch.dtype = torch.float32) -> QwenVideo:
    """Frames (T, 3, H, W) ``uint8``, H and W whole numbers of merged patches, normalised and in patches.

    The last frame is repeated until they fill the last temporal patch.
    """
    step, side, merge = config.temporal_patch_size, config.patch_size, config.spatial_merge_size
    frames = torch.cat([frames, frames[-1:].expand(-len(frames) % step, -1, -1, -1)])
    pixels = normalise(frames, CLIP_MEAN, CLIP_STD, dtype)
    t, h, w = len(frames) // step, frames.shape[2] // side, frames.shape[3] // side
    blocks = pixels.reshape(t, step, 3, h // merge, merge, side, w // merge, merge, side)
    patches = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, -1)
    return QwenVideo(patches, torch.tensor([[t, h, w]], device=frames.device))
