"""PatchGAN: a small network that says of every patch of a video whether it looks real (Isola et al., 2017)."""

from typing import Literal

from torch import Tensor, nn

LAYERS = 3
KERNEL, PADDING = 4, 1
TIME_KERNEL = 3  # odd: no frame is favoured


class PatchGAN(nn.Module):
    """Norms are over the micro-batch at hand, always: there are no running statistics.

    Args:
        dims: 2 looks at each frame by itself, 3 at patches of space and time.
        width: channels of the first layer.
    """

    def __init__(self, dims: Literal[2, 3] = 2, width: int = 64):
        super().__init__()
        self.dims = dims
        widths = [width * min(2**depth, 8) for depth in range(LAYERS + 1)]
        layers = [self.conv(3, width, stride=2), nn.LeakyReLU(0.2)]
        for depth in range(1, LAYERS + 1):
            layers.append(self.conv(widths[depth - 1], widths[depth], stride=2 if depth < LAYERS else 1, bias=False))
            norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
            layers += [norm(widths[depth], track_running_stats=False), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, self.conv(widths[-1], 1, stride=1))
        self.apply(initialise)

    def conv(self, inputs: int, outputs: int, stride: int, bias: bool = True) -> nn.Module:
        if self.dims == 2:
            return nn.Conv2d(inputs, outputs, KERNEL, stride, PADDING, bias=bias)
        kernel, padding = (TIME_KERNEL, KERNEL, KERNEL), (TIME_KERNEL // 2, PADDING, PADDING)
        return nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Videos (B, 3, T, H, W) to logits of patches, in fp32: the higher the more real."""
        x = x.to(self.layers[0].weight.dtype)
        return self.layers(x.transpose(1, 2).flatten(0, 1) if self.dims == 2 else x).float()


def initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02), those of norms from N(1, 0.02)."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
        nn.init.normal_(module.weight, 1.0, 0.02)
