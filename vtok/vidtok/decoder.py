"""The decoder: latents to frames."""

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from vtok.vidtok.blocks import Level, Middle, Runner, space_block, time_block
from vtok.vidtok.config import VidTokConfig
from vtok.vidtok.layers import ActivatedNorm
from vtok.vidtok.resample import InterpolatedTimeUp, SpaceUp, TimeUp
from vtok.vidtok.stream import Stream
from vtok.vidtok.time_rules import TimeRules


class Decoder(nn.Module):
    """The mirror image of the encoder, with one more pair of blocks in each level.

    Level 0 has the full resolution, as in the encoder. The decoder runs from the highest level down to level 0.
    """

    def __init__(self, config: VidTokConfig):
        super().__init__()
        self.config = config
        self.run = Runner()
        rules = TimeRules(config.time)
        time_up = InterpolatedTimeUp if rules.replicate else TimeUp
        top = len(config.ch_mult) - 1
        width = config.width(top)
        self.conv_in = rules.over_space_time(config.z_channels, width)
        self.mid = Middle(rules, width)
        self.up, self.up_temporal = nn.ModuleList(), nn.ModuleList()
        for level in range(top + 1):
            width = config.width(level)
            inputs = [config.width(min(level + 1, top))] + [width] * config.num_res_blocks
            space = Level([space_block(channels, width) for channels in inputs])
            time = Level([time_block(rules, width) for _ in inputs])
            if level in config.spatial_us:
                space.upsample = SpaceUp(width)
            if level in config.tempo_us:
                time.upsample = time_up(rules, width)
            self.up.append(space)
            self.up_temporal.append(time)
        self.norm_out = ActivatedNorm(config.width(0))
        self.conv_out = rules.over_space_time(config.width(0), 3)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last convolution. The adversarial loss is balanced by the gradients at this weight."""
        return next(self.conv_out.parameters())

    def forward(self, z: Tensor, stream: Stream) -> Tensor:
        """Maps latents (B, t, h, w, channels) to frames (B, t f, h s, w s, 3).

        There are fewer frames where ``stream`` holds some back for the next chunk.
        """
        x = self.mid(self.conv_in(z.contiguous(), stream), stream)
        for space, time in cast(Iterable[tuple[Level, Level]], zip(reversed(self.up), reversed(self.up_temporal))):
            for over_space, over_time in zip(space.block, time.block):
                x = self.run(over_time, self.run(over_space, x, stream), stream)
            for level in (space, time):
                if hasattr(level, "upsample"):
                    x = level.upsample(x, stream)
        return self.conv_out(self.norm_out(x), stream)
