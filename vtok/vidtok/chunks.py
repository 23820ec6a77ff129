"""Encodes and decodes a causal video chunk by chunk, with the same result as the whole video at once.

The state between chunks is small. Each layer over time keeps its last one or two input frames. The encoder also keeps
at most f - 1 frames of video that do not complete a latent frame yet.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vtok.config import require
from vtok.vidtok.config import VidTokConfig
from vtok.vidtok.decoder import Decoder
from vtok.vidtok.encoder import Encoder
from vtok.vidtok.stream import Stream


@dataclass
class EncoderState:
    """The progress of an encoder through a video.

    Attributes:
        frames_left: Frames of the video that are still to come.
        stream: The last input frames of each layer over time.
        copies: Copies of the first frame that v1.0 puts before the video.
        pending: Frames (B, n, H, W, 3) that do not complete a latent frame yet.
    """

    frames_left: int
    stream: Stream
    copies: int = 0
    pending: Tensor | None = None


@dataclass
class DecoderState:
    """The progress of a decoder through a video.

    Attributes:
        latents_left: Latent frames that are still to come.
        stream: The last input frames of each layer over time.
    """

    latents_left: int
    stream: Stream


def start_encoding(config: VidTokConfig, frames: int) -> EncoderState:
    """Returns the state before the first chunk of a video of ``frames`` frames.

    The padding at the start of a video depends on its length, so the length must be known here.
    """
    factor = config.time_factor
    if config.time == "causal":
        return EncoderState(frames, Stream(), copies=factor - 1 if frames % factor else 0)
    return EncoderState(frames, Stream(repeats=1 + -frames % factor))


def encode_chunk(encoder: Encoder, x: Tensor, state: EncoderState) -> Tensor:
    """Encodes the next chunk of a video and advances ``state``.

    Args:
        encoder: The encoder of a causal model.
        x: The next frames, (B, T, H, W, 3), in [-1, 1].
        state: The progress so far.

    Returns:
        The moments (B, t, h, w, channels) of the latent frames that ``x`` completes; t may be zero.

    Raises:
        ConfigError: ``x`` has more frames than the video has left.
    """
    config, stream = encoder.config, state.stream
    require(
        x.shape[1] <= state.frames_left,
        f"the chunk has {x.shape[1]} frames, but the video has {state.frames_left} left",
    )
    state.frames_left -= x.shape[1]
    stream.last = state.frames_left == 0
    before = state.pending if state.pending is not None else x[:, :1].expand(-1, state.copies, -1, -1, -1)
    x = torch.cat([before, x], dim=1)
    hidden = stream.repeats - 1  # the first frame stands for itself and for this many copies
    ready = (x.shape[1] + hidden) // config.time_factor * config.time_factor - hidden
    state.pending = x[:, max(ready, 0) :].clone()
    if ready <= 0:
        height, width = (side // config.space_factor for side in x.shape[2:4])
        return x.new_empty(len(x), 0, height, width, config.encoder_channels)
    moments = encoder(x[:, :ready], stream)
    stream.next()
    return moments


def decode_chunk(decoder: Decoder, z: Tensor, state: DecoderState) -> Tensor:
    """Decodes the next chunk of latents and advances ``state``.

    Args:
        decoder: The decoder of a causal model.
        z: The next latent frames, (B, t, h, w, channels).
        state: The progress so far.

    Returns:
        The frames (B, T, H, W, 3) that are final now. v1.1 interpolates towards the next latent frame, so it returns
        some frames only with the next chunk.

    Raises:
        ConfigError: ``z`` has more latent frames than the video has left.
    """
    config, stream, first = decoder.config, state.stream, state.stream.first
    require(
        z.shape[1] <= state.latents_left,
        f"the chunk has {z.shape[1]} latent frames, but the video has {state.latents_left} left",
    )
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
