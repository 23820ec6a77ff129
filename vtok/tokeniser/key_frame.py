"""Detects a clip's key frame (the paper's footnote 1 leaves the detector open).

The detector takes the frames nearest to the clip's median picture, which excludes cuts and flashes. Among them it picks
the sharpest, since a blurred frame makes poor spatial tokens. It looks at pixels, so it is cheap. Each of its operators
has a deterministic form on a GPU.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vtok.devices import to_device

THUMBNAIL = 8  # pixels along a side of the pictures that are compared
TYPICAL_SHARE = 0.25  # of the frames, those nearest to the median


def detect_key_frame(frames: Tensor) -> int:
    """Returns the index of the key frame of frames (T, 3, H, W), any dtype and scale. The earliest of equals wins."""
    pixels = frames.float()
    thumbnails = F.adaptive_avg_pool2d(pixels, THUMBNAIL).flatten(1)
    median = thumbnails.sort(dim=0).values[(len(frames) - 1) // 2]  # torch.median has no deterministic form on a GPU
    distance = (thumbnails - median).norm(dim=1)
    count = max(1, round(TYPICAL_SHARE * len(frames)))
    typical = distance.sort(stable=True).indices[:count].sort().values
    return int(typical.take(sharpness(pixels[typical]).argmax()))


def sharpness(pixels: Tensor) -> Tensor:
    """Returns the variance of the brightness's Laplacian (Pech-Pacheco et al., 2000): (n, 3, H, W) to (n,)."""
    kernel = to_device(torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]), pixels.device)
    return F.conv2d(pixels.mean(1, keepdim=True), kernel[None, None]).flatten(1).var(1)
