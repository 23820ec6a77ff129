"""The three ways of the family to treat time: how its layers are padded, and which names their parameters have."""

from torch import nn

from vtok.vidtok.layers import Causal, Pointwise, SpaceTimeConv, TimeConv


class TimeRules:
    """Makes the layers that see more than one frame.

    Args:
        time: see :class:`vtok.vidtok.config.VidTokConfig`.
    """

    def __init__(self, time: str):
        self.is_causal, self.replicate = time != "noncausal", time == "causal_v1_1"

    @property
    def padding(self) -> int:
        """Of a kernel of three, by zeros on both sides; a causal layer gets the past instead."""
        return 0 if self.is_causal else 1

    def wrapped(self, conv: nn.Module, past: int = 0) -> nn.Module:
        return Causal(conv, past, self.replicate) if self.is_causal else conv

    def over_time(self, channels_in: int, channels_out: int) -> nn.Module:
        return self.wrapped(TimeConv(channels_in, channels_out, 3, padding=self.padding), past=2)

    def over_space_time(self, channels_in: int, channels_out: int) -> nn.Module:
        return self.wrapped(SpaceTimeConv(channels_in, channels_out, 3, padding=(self.padding, 1, 1)), past=2)

    def pointwise(self, channels: int) -> nn.Module:
        return self.wrapped(Pointwise(channels))
