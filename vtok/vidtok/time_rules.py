"""The three ways in which the family handles time. They differ in padding and in the names of parameters."""

from torch import nn

from vtok.vidtok.layers import Causal, Pointwise, SpaceTimeConv, TimeConv


class TimeRules:
    """Builds the layers that see more than one frame.

    Args:
        time: See :class:`vtok.vidtok.config.VidTokConfig`.

    Attributes:
        is_causal: Whether no layer sees a later frame.
        replicate: Whether a clip is preceded by copies of its first frame (v1.1) rather than by zeros (v1.0).
    """

    def __init__(self, time: str):
        self.is_causal, self.replicate = time != "noncausal", time == "causal_v1_1"

    @property
    def padding(self) -> int:
        """Frames of zeros on each side for a kernel of three; none for a causal layer, which gets the past instead."""
        return 0 if self.is_causal else 1

    def wrapped(self, conv: nn.Module, past: int = 0) -> nn.Module:
        """Wraps a layer in :class:`Causal` if the model is causal. This also gives it the published name ``conv``."""
        return Causal(conv, past, self.replicate) if self.is_causal else conv

    def over_time(self, channels_in: int, channels_out: int) -> nn.Module:
        """Builds a convolution over three frames of each pixel."""
        return self.wrapped(TimeConv(channels_in, channels_out, 3, padding=self.padding), past=2)

    def over_space_time(self, channels_in: int, channels_out: int) -> nn.Module:
        """Builds a 3 x 3 x 3 convolution."""
        return self.wrapped(SpaceTimeConv(channels_in, channels_out, 3, padding=(self.padding, 1, 1)), past=2)

    def pointwise(self, channels: int) -> nn.Module:
        """Builds a linear map of each pixel. It sees one frame, but causal models name it like a layer over time."""
        return self.wrapped(Pointwise(channels))
