"""Where training from nothing begins.

With torch's own initialisation small models stay for thousands of steps at the mean colour of a clip: the signal
shrinks from layer to layer, and the noise of the latents, whose deviation begins at one, drowns what is left of it.
"""

import math

import torch
from torch import nn

from vtok.vidtok.blocks import FrameAttention, ResidualBlock
from vtok.vidtok.model import VidTok

LOG_VARIANCE = -8.0


@torch.no_grad()
def initialise(model: VidTok) -> None:
    """Draw the weights of a VidTok that is to be trained from nothing.

    Convolutions keep the variance of what they are given, residual blocks and attention begin as the identity, and the
    latents of a ``kl`` with little noise. No convolution looks at other frames at first, so that what is learned on
    short clips holds for long ones. Norms and the blends of temporal resampling stay as they are built.
    """
    present = 2 if model.is_causal else 1
    for layer in model.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
            over_time = not isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1
            seen = layer.weight[:, :, present] if over_time else layer.weight
            bound = math.sqrt(3 / seen[0].numel())
            seen.uniform_(-bound, bound)
    for block in model.modules():
        if isinstance(block, (ResidualBlock, FrameAttention)):
            last = block.conv2 if isinstance(block, ResidualBlock) else block.proj_out
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
    if model.config.regulariser == "kl":
        (bias,) = (p for name, p in model.encoder.conv_out.named_parameters() if name.endswith("bias"))
        bias[model.config.z_channels :] = LOG_VARIANCE
