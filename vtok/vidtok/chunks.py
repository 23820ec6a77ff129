"""Chunks of a causal video through encoder and decoder, as exact as the whole video at once.

The state of such a pass is explicit and small: of each layer over time the last one or two input frames, and at most
f - 1 frames of video that do not make up a latent frame yet.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vtok.config import require
from vtok.vidtok.config import VidTokConfig
from vtok.vidtok.stream import Stream


@dataclass
class EncoderState:
    """Where an encoder stands in a video.

    Attributes:
        frames_left: of the video, still to come.
        stream: what its layers remember.
        copies: of the first frame that v1.0 puts before the video.
        pending: (B, n, H, W, 3), frames that wait for enough others.
    """

    frames_left: int
    stream: Stream
    copies: int = 0
    pending: Tensor | None = None


@dataclass
class DecoderState:
    """Where a decoder stands in a video; ``latents_left`` are its latent frames still to come."""

    latents_left: int
    stream: Stream


def start_encoding(config: VidTokConfig, frames: int) -> EncoderState:
    """Of a video of so many frames: how it is padded, which is at its start, depends on them."""
    factor = config.time_factor
    if config.time == "causal":
        return EncoderState(frames, Stream(), copies=factor - 1 if frames % factor else 0)
    return EncoderState(frames, Stream(repeats=1 + -frames % factor))


def encode_chunk(encoder: nn.Module, x: Tensor, state: EncoderState) -> Tensor:
    """Moments (B, t, h, w, channels) of the latent frames that (B, T, H, W, 3) completes; t may be zero.

    Raises:
        ConfigError: it is more than what was left of the video.
    """
    config, stream = encoder.config, state.stream
    require(x.shape[1] <= state.frames_left, f"{x.shape[1]} frames, where the video has {state.frames_left} left")
    state.frames_left -= x.shape[1]
    stream.last = state.frames_left == 0
    before = state.pending if state.pending is not None else x[:, :1].expand(-1, state.copies, -1, -1, -1)
    x = torch.cat([before, x], dim=1)
    hidden = stream.repeats - 1  # frames that the first one stands for besides itself
    ready = (x.shape[1] + hidden) // config.time_factor * config.time_factor - hidden
    state.pending = x[:, max(ready, 0) :].clone()
    if ready <= 0:
        height, width = (side // config.space_factor for side in x.shape[2:4])
        return x.new_empty(len(x), 0, height, width, config.encoder_channels)
    moments = encoder(x[:, :ready], stream)
    stream.next()
    return moments


def decode_chunk(decoder: nn.Module, z: Tensor, state: DecoderState) -> Tensor:
    """Frames (B, T, H, W, 3) that (B, t, h, w, channels) settle; v1.1 knows some only when the next latents are there.

    Raises:
        ConfigError: it is more than what was left of the video.
    """
    config, stream, first = decoder.config, state.stream, state.stream.first
    require(z.shape[1] <= state.latents_left, f"{z.shape[1]} latent frames, where {state.latents_left} are left")
    state.latents_left -= z.shape[1]
    stream.last = state.latents_left == 0
    if z.shape[1] == 0:
        height, width = (side * config.space_factor for side in z.shape[2:4])
        return z.new_empty(len(z), 0, height, width, 3)
    x = decoder(z, stream)
    if first and config.time == "causal":
        x = x[:, config.time_factor - 1 :]
    elif first:
        x = torch.cat([x[:, :1].expand(-1, stream.repeats - 1, -1, -1, -1), x], dim=1)
    stream.next()
    return x
