"""The encoder: frames to the moments of a Gaussian (``kl``), or to unrounded latents (``fsq``)."""

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from vtok.vidtok.blocks import Level, Middle, Runner, space_block, time_block
from vtok.vidtok.config import VidTokConfig
from vtok.vidtok.layers import ActivatedNorm
from vtok.vidtok.resample import SpaceDown, TimeDown
from vtok.vidtok.stream import Stream
from vtok.vidtok.time_rules import TimeRules


class Encoder(nn.Module):
    """Levels of falling resolution. In each level a block over space and a block over time alternate."""

    def __init__(self, config: VidTokConfig):
        super().__init__()
        self.config = config
        self.run = Runner()
        rules, levels = TimeRules(config.time), range(len(config.ch_mult))
        self.conv_in = rules.over_space_time(3, config.ch)
        self.down, self.down_temporal = nn.ModuleList(), nn.ModuleList()
        for level in levels:
            width, before = config.width(level), config.width(level - 1) if level else config.ch
            inputs = [before] + [width] * (config.num_res_blocks - 1)
            space = Level([space_block(channels, width) for channels in inputs])
            time = Level([time_block(rules, width) for _ in inputs])
            if level in config.spatial_ds:
                space.downsample = SpaceDown(width)
            if level in config.tempo_ds:
                time.downsample = TimeDown(rules, width)
            self.down.append(space)
            self.down_temporal.append(time)
        self.mid = Middle(rules, width)
        self.norm_out = ActivatedNorm(width)
        self.conv_out = rules.over_space_time(width, config.encoder_channels)

    @property
    def time_downsample_factor(self) -> int:
        """Frames per latent frame, under the name that the published code gives it."""
        return self.config.time_factor

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Maps frames (B, T, H, W, 3) in [-1, 1] to (B, T / f, H / s, W / s, channels)."""
        x = self.conv_in(x.contiguous(), stream)
        for space, time in cast(Iterable[tuple[Level, Level]], zip(self.down, self.down_temporal)):
            for over_space, over_time in zip(space.block, time.block):
                x = self.run(over_time, self.run(over_space, x, stream), stream)
            for level in (space, time):
                if hasattr(level, "downsample"):
                    x = level.downsample(x, stream)
        return self.conv_out(self.norm_out(self.mid(x, stream)), stream)
