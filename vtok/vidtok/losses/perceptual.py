"""LPIPS: the perceptual distance of two pictures (Zhang et al., 2018, arXiv 1801.03924)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.config import ConfigError
from vtok.weights import open_file

# The convolutions of VGG-16, block by block: (number, channels). The published file also numbers ReLUs and poolings.
BLOCKS = (((0, 64), (2, 64)), ((5, 128), (7, 128)), ((10, 256), (12, 256), (14, 256)),
          ((17, 512), (19, 512), (21, 512)), ((24, 512), (26, 512), (28, 512)))  # fmt: skip
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of each colour, for pictures in [-1, 1]
LEAST_NORM = 1e-10


class LPIPS(nn.Module):
    """The frozen network. It has no dropout, so it behaves the same in training and at evaluation.

    Attributes:
        features: The convolutions of VGG-16, by their number.
        lin: The weights of the channels of each block, (1, C, 1, 1).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self):
        super().__init__()
        self.features, self.lin = nn.ModuleDict(), nn.ParameterList()
        inputs = 3
        for block in BLOCKS:
            for number, width in block:
                self.features[str(number)] = nn.Conv2d(inputs, width, 3, padding=1)
                inputs = width
            self.lin.append(torch.zeros(1, inputs, 1, 1))
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the distances (N,) of pairs of pictures: the paper's equation 1.

        Args:
            x: Pictures (N, 3, H, W) in [-1, 1].
            y: Pictures of the same shape.
        """
        x, y = ((pictures - self.shift) / self.scale for pictures in (x, y))
        distance = x.new_zeros(len(x))
        for depth, (block, weight) in enumerate(zip(BLOCKS, self.lin)):
            x, y = (self.block(pictures, block, halve=depth > 0) for pictures in (x, y))
            difference = (unit_length(x) - unit_length(y)).square()
            distance = distance + (difference * weight).sum(1).mean((1, 2))
        return distance

    def block(self, x: Tensor, block: tuple[tuple[int, int], ...], halve: bool) -> Tensor:
        """Applies a block of VGG-16 to features (N, C, H, W), after 2 x 2 max pooling if ``halve``."""
        x = F.max_pool2d(x, 2) if halve else x
        for number, _ in block:
            x = F.relu(self.features[str(number)](x))
        return x


def unit_length(x: Tensor) -> Tensor:
    """Scales the feature vector of each pixel of (N, C, H, W) to length 1."""
    return x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + LEAST_NORM)


@torch.no_grad()
def load_lpips(vgg: str | Path, linear: str | Path) -> LPIPS:
    """Builds LPIPS from local files.

    Args:
        vgg: The weights of VGG-16 as torchvision publishes them (``vgg16-397923af.pth``).
        linear: The weights of the channels (``vgg.pth`` of LPIPS 0.1).

    Raises:
        ConfigError: A file is unreadable, or lacks a weight.
    """
    lpips = LPIPS()
    layers = {f"features.{name}": parameter for name, parameter in lpips.features.named_parameters()}
    channels = {f"lin{depth}.model.1.weight": parameter for depth, parameter in enumerate(lpips.lin)}
    for path, parameters in ((vgg, layers), (linear, channels)):
        stored = open_file(Path(path))
        for name, parameter in parameters.items():
            if name not in stored or stored[name].shape != tuple(parameter.shape):
                raise ConfigError(f"{path} lacks {name} {tuple(parameter.shape)}: is it the file that LPIPS needs?")
            stored[name].read_into(parameter.view(-1), 0)
    return lpips
