"""PatchGAN: a small network that judges of every patch of a video whether it looks real (Isola et al., 2017)."""

from typing import Literal

from torch import Tensor, nn

LAYERS = 3
KERNEL = {
    2: 4,
    3: 3,
}  # by number of axes; those of 3 axes are Open-Sora-Plan's, whose module VidTok's loss is written for
PADDING = 1
TIME_STRIDED = 2  # layers that also halve the number of frames


class PatchGAN(nn.Module):
    """The discriminator. Its norms always use the statistics of the current micro-batch; there are no running ones.

    Args:
        dims: 2 judges patches of single frames, 3 judges patches of space and time.
        width: Channels of the first layer.
    """

    def __init__(self, dims: Literal[2, 3] = 2, width: int = 64):
        super().__init__()
        self.dims = dims
        widths = [width * min(2**depth, 8) for depth in range(LAYERS + 1)]
        layers = [self.conv(3, width, 0), nn.LeakyReLU(0.2)]
        for depth in range(1, LAYERS + 1):
            layers.append(self.conv(widths[depth - 1], widths[depth], depth, bias=False))
            norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
            layers += [norm(widths[depth], track_running_stats=False), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, self.conv(widths[-1], 1, LAYERS + 1))
        self.apply(initialise)

    def conv(self, inputs: int, outputs: int, depth: int, bias: bool = True) -> nn.Module:
        """Builds the convolution of a depth: the first three halve the frame's sides, the first two the time too."""
        space = 2 if depth < LAYERS else 1
        if self.dims == 2:
            return nn.Conv2d(inputs, outputs, KERNEL[2], space, PADDING, bias=bias)
        time = 2 if depth < TIME_STRIDED else 1
        return nn.Conv3d(inputs, outputs, KERNEL[3], (time, space, space), PADDING, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps videos (B, 3, T, H, W) to fp32 logits of patches; a higher logit means more real.

        Returns:
            (B T, 1, h, w) with ``dims`` 2, (B, 1, t, h, w) with 3.
        """
        x = x.to(next(self.parameters()).dtype)
        return self.layers(x.transpose(1, 2).flatten(0, 1) if self.dims == 2 else x).float()


def initialise(module: nn.Module) -> None:
    """Draws the weights of a convolution from N(0, 0.02), those of a norm from N(1, 0.02)."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
        nn.init.normal_(module.weight, 1.0, 0.02)
