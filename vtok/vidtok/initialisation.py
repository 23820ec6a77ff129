"""The initial weights of a VidTok that is trained from scratch.

With torch's default initialisation small models output a clip's mean colour for thousands of steps. The signal shrinks
from layer to layer, and the noise of the latents, whose standard deviation starts at one, drowns what is left of it.
"""

import math

import torch
from torch import nn

from vtok.vidtok.blocks import FrameAttention, ResidualBlock
from vtok.vidtok.model import VidTok

LOG_VARIANCE = -8.0  # of a kl model's latents, at the start


@torch.no_grad()
def initialise(model: VidTok) -> None:
    """Draws the weights of a VidTok in place.

    - Convolutions keep the variance of their input.
    - Convolutions over time only see the present frame, so what short clips teach holds for long ones.
    - Residual blocks and attention start as the identity.
    - The latents of a ``kl`` model start with little noise.

    Norms and the blend factors of temporal resampling keep the values that the constructor gave them.
    """
    present = 2 if model.is_causal else 1
    for layer in model.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
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
