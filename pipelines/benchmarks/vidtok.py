"""VidTok's network against the plain arrangement of it, on the same weights and clip."""

from typing import NamedTuple

import torch

from pipelines.benchmarks.paired import cpu_seconds, ratio
from pipelines.benchmarks.vidtok_plain import PlainVidTok
from vtok.vidtok import load_model


class Speed(NamedTuple):
    """CPU time of the plain arrangement over that of the network."""

    encode: float
    decode: float


@torch.no_grad()
def against_plain(name: str, ch: int = 128, frames: int = 17, size: int = 64, repeats: int = 3) -> Speed:
    """Of one clip of ``frames`` frames of ``size`` x ``size``."""
    model = load_model(name, ch=ch).eval()
    plain = PlainVidTok(model)
    clip = torch.rand(1, 3, frames, size, size) * 2 - 1
    z = model.encode(clip)
    model.decode(z), plain.decode(z), plain.encode(clip)  # the first of all is slow
    return Speed(
        ratio(cpu_seconds(lambda: plain.encode(clip)), cpu_seconds(lambda: model.moments(clip)), repeats),
        ratio(cpu_seconds(lambda: plain.decode(z)), cpu_seconds(lambda: model.decode(z)), repeats),
    )
