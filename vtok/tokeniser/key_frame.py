"""A key frame chosen by looking at the clip (the paper's footnote 1 leaves the detector open).

The sharpest of the frames that are most like the clip as a whole: a picture of something else (a cut, a flash) lies far
from the median, a blurred one is a poor source of spatial tokens. It looks at pixels and not at features of ``F``, so
it is cheap. Every operator of it has a deterministic form on a GPU.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vtok.devices import to_device

THUMBNAIL = 8
TYPICAL_SHARE = 0.25


def detect_key_frame(frames: Tensor) -> int:
    """Index of the key frame among (T, 3, H, W) frames of any dtype and scale; the earliest of equals."""
    pixels = frames.float()
    thumbnails = F.adaptive_avg_pool2d(pixels, THUMBNAIL).flatten(1)
    median = thumbnails.sort(dim=0).values[(len(frames) - 1) // 2]  # torch.median has no deterministic form on a GPU
    distance = (thumbnails - median).norm(dim=1)
    count = max(1, round(TYPICAL_SHARE * len(frames)))
    typical = distance.sort(stable=True).indices[:count].sort().values
    return int(typical.take(sharpness(pixels[typical]).argmax()))


def sharpness(pixels: Tensor) -> Tensor:
    """Variance of the Laplacian of the brightness (Pech-Pacheco et al., 2000): (n, 3, H, W) -> (n,)."""
    kernel = to_device(torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]), pixels.device)
    return F.conv2d(pixels.mean(1, keepdim=True), kernel[None, None]).flatten(1).var(1)
