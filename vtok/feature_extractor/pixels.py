"""Pixels in the form that the frozen backbones take."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vtok.config import ConfigError
from vtok.devices import to_device

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype) -> Tensor:
    """Normalises ``uint8`` pixels (n, 3, H, W) to ``dtype``. Floating-point pixels are only cast."""
    if pixels.dtype != torch.uint8:
        return pixels.to(dtype)
    centre, scale = to_device(torch.tensor([mean, std]).view(2, 3, 1, 1), pixels.device)
    return ((pixels.float() / 255 - centre) / scale).to(dtype)


def side_of(size: int | Sequence[int] | None) -> int:
    """Returns the side of a square of pixels, which transformers' configurations may also give as two numbers.

    Raises:
        ConfigError: It is not given as one number.
    """
    if not isinstance(size, int):
        raise ConfigError(f"the backbone's images and patches should be squares of one size, not {size}")
    return size
