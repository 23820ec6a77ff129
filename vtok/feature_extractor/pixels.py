"""Pixels as the frozen backbones take them."""

import torch
from torch import Tensor

from vtok.devices import to_device

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalise(pixels: Tensor, mean: tuple, std: tuple, dtype: torch.dtype) -> Tensor:
    """``uint8`` (n, 3, H, W) to normalised ``dtype``; floating point passes through unchanged but for its dtype."""
    if pixels.dtype != torch.uint8:
        return pixels.to(dtype)
    mean, std = to_device(torch.tensor([mean, std]).view(2, 3, 1, 1), pixels.device)
    return ((pixels.float() / 255 - mean) / std).to(dtype)
