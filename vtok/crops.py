"""The part of a video that the model sees, in training and afterwards."""

import torch.nn.functional as F
from torch import Tensor

from vtok.framework import VTokFramework


def as_seen(framework: VTokFramework, frames: Tensor) -> Tensor:
    """Crops and resizes ``uint8`` frames (T, 3, H, W) as training does: (T, 3, s, s).

    The tokeniser sees the centre square of the part that the decoder draws.
    """
    config = framework.config
    if config.generates:
        frames = centre_part(frames, *config.decoder.loss_size)
    return centre_square(frames, framework.tokeniser.feature_extractor.image_size)


def centre_part(frames: Tensor, height: int, width: int) -> Tensor:
    """Crops frames (T, 3, H, W) to their largest centred part with the aspect ratio ``width`` : ``height``."""
    full_height, full_width = frames.shape[-2:]
    inner_width = max(1, min(full_width, round(full_height * width / height)))
    inner_height = max(1, min(full_height, round(full_width * height / width)))
    return cut_centre(frames, inner_height, inner_width)


def centre_square(frames: Tensor, size: int) -> Tensor:
    """Resizes ``uint8`` frames (T, 3, H, W) to cover ``size`` x ``size`` and crops the centre. Rounds as CLIP does."""
    height, width = (edge * size // min(frames.shape[-2:]) for edge in frames.shape[-2:])
    resized = F.interpolate(frames, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return cut_centre(resized, size, size)


def cut_centre(frames: Tensor, height: int, width: int) -> Tensor:
    """Cuts the centre of this size out of larger frames (T, 3, H, W)."""
    top, left = (frames.shape[-2] - height) // 2, (frames.shape[-1] - width) // 2
    return frames[..., top : top + height, left : left + width]
