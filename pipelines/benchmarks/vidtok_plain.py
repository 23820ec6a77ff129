"""VidTok's network step by step on (B, C, T, H, W), the arrangement of the published models.

It is what :mod:`vtok.vidtok` must equal and is measured against: frames, or pixels' histories, are moved into the batch
for each block, padding is written out, doubled tensors are convolved as they are, every copy of a frame is computed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vtok.vidtok import VidTok
from vtok.vidtok.config import VidTokConfig


class PlainVidTok:
    """Whole clips through the parameters of a :class:`VidTok`."""

    def __init__(self, model: VidTok):
        self.config: VidTokConfig = model.config
        self.parameters = dict(model.named_parameters())

    def encode(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to moments (B, channels, t, h, w)."""
        config, factor = self.config, self.config.time_factor
        if config.is_causal and x.shape[2] % factor:
            copies = factor - 1 if config.time == "causal" else factor - x.shape[2] % factor
            x = F.pad(x, (0, 0, 0, 0, copies, 0), mode="replicate")
        x = self.conv3d("encoder.conv_in", x)
        for level in range(len(config.ch_mult)):
            for block in range(config.num_res_blocks):
                x = self.pair(f"encoder.down.{level}.block.{block}", f"encoder.down_temporal.{level}.block.{block}", x)
            if level in config.spatial_ds:
                frames = F.pad(into_frames(x), (0, 1, 0, 1))
                frames = F.conv2d(frames, *self.of(f"encoder.down.{level}.downsample.conv"), stride=2)
                x = from_frames(frames, len(x))
            if level in config.tempo_ds:
                x = self.halve(f"encoder.down_temporal.{level}.downsample", x)
        x = self.middle("encoder.mid", x)
        return self.conv3d("encoder.conv_out", activate(self.norm("encoder.norm_out", x)))

    def decode(self, z: Tensor) -> Tensor:
        """(B, z, t, h, w) to frames (B, 3, T, H, W)."""
        config = self.config
        x = self.middle("decoder.mid", self.conv3d("decoder.conv_in", z))
        rate = 1
        for level in reversed(range(len(config.ch_mult))):
            for block in range(config.num_res_blocks + 1):
                x = self.pair(f"decoder.up.{level}.block.{block}", f"decoder.up_temporal.{level}.block.{block}", x)
            if level in config.spatial_us:
                frames = F.interpolate(into_frames(x), scale_factor=2.0, mode="nearest")
                frames = F.conv2d(frames, *self.of(f"decoder.up.{level}.upsample.conv"), padding=1)
                x = from_frames(frames, len(x))
            if level in config.tempo_us:
                x = self.double(f"decoder.up_temporal.{level}.upsample", x, rate)
                rate *= 2
        x = self.conv3d("decoder.conv_out", activate(self.norm("decoder.norm_out", x)))
        return x[:, :, config.time_factor - 1 :] if config.time == "causal" else x

    # ---------------------------------------------------------------- layers

    def of(self, name: str) -> tuple[Tensor, Tensor]:
        """Weight and bias; those of causal layers lie one deeper."""
        name = name if f"{name}.weight" in self.parameters else f"{name}.conv"
        return self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.of(f"{name}.norm")
        return F.layer_norm(x.movedim(1, -1), (x.shape[1],), weight, bias, eps=1e-6).movedim(-1, 1).contiguous()

    def padded(self, x: Tensor, past: int) -> Tensor:
        """Time, which is dimension 2, as a kernel of three wants it."""
        if self.config.time == "noncausal":
            return torch.cat([torch.zeros_like(x[:, :, :1]), x, torch.zeros_like(x[:, :, :1])], dim=2)
        before = x[:, :, :1] if self.config.time == "causal_v1_1" else torch.zeros_like(x[:, :, :1])
        return torch.cat([before] * past + [x], dim=2)

    def conv3d(self, name: str, x: Tensor) -> Tensor:
        return F.conv3d(self.padded(x, 2), *self.of(name), padding=(0, 1, 1))

    def pair(self, space: str, time: str, x: Tensor) -> Tensor:
        """A residual block over space, then one over time."""
        batch, _, _, height, width = x.shape
        x = from_frames(
            self.residual(space, into_frames(x), lambda name, y: F.conv2d(y, *self.of(name), padding=1)), batch
        )
        pixels = x.permute(0, 3, 4, 1, 2).flatten(0, 2).contiguous()
        pixels = self.residual(time, pixels, lambda name, y: F.conv1d(self.padded(y, 2), *self.of(name)))
        return pixels.unflatten(0, (batch, height, width)).permute(0, 3, 4, 1, 2).contiguous()

    def residual(self, name: str, x: Tensor, conv) -> Tensor:
        hidden = conv(f"{name}.conv1", activate(self.norm(f"{name}.norm1", x)))
        hidden = conv(f"{name}.conv2", activate(self.norm(f"{name}.norm2", hidden)))
        if f"{name}.nin_shortcut.weight" in self.parameters:
            x = F.conv2d(x, *self.of(f"{name}.nin_shortcut"))
        return x + hidden

    def middle(self, name: str, x: Tensor) -> Tensor:
        x = self.residual(f"{name}.block_1", x, self.conv3d)
        normed = self.norm(f"{name}.attn_1.norm", x)
        q, k, v = (F.conv3d(normed, *self.of(f"{name}.attn_1.{which}")) for which in "qkv")
        q, k, v = (y.permute(0, 2, 3, 4, 1).flatten(2, 3).contiguous() for y in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v).unflatten(2, x.shape[3:]).permute(0, 4, 1, 2, 3)
        x = x + F.conv3d(attended, *self.of(f"{name}.attn_1.proj_out"))
        return self.residual(f"{name}.block_2", x, self.conv3d)

    def halve(self, name: str, x: Tensor) -> Tensor:
        alpha = self.parameters[f"{name}.mix_factor"].sigmoid()
        x = self.padded(x, 1)[:, :, 1:] if self.config.time == "noncausal" else self.padded(x, 1)
        pooled = F.avg_pool3d(x, (3, 1, 1), stride=(2, 1, 1))
        return alpha * pooled + (1 - alpha) * F.conv3d(x, *self.of(f"{name}.conv"), stride=(2, 1, 1), padding=(0, 1, 1))

    def double(self, name: str, x: Tensor, rate: int) -> Tensor:
        """``rate``: frames that a latent frame has become."""
        alpha = self.parameters[f"{name}.mix_factor"].sigmoid()
        if self.config.time == "causal_v1_1":
            parts = [part for part in (x[:, :, :rate], x[:, :, rate:]) if part.shape[2]]
            parts = [F.interpolate(part, scale_factor=(2.0, 1.0, 1.0), mode="trilinear") for part in parts]
            x = torch.cat(parts, dim=2)
        else:
            x = F.interpolate(x, scale_factor=(2.0, 1.0, 1.0), mode="nearest")
        return alpha * x + (1 - alpha) * self.conv3d(f"{name}.conv", x)


def activate(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def into_frames(x: Tensor) -> Tensor:
    """(B, C, T, H, W) to (B T, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def from_frames(x: Tensor, batch: int) -> Tensor:
    """(B T, C, H, W) to (B, C, T, H, W)."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2).contiguous()
