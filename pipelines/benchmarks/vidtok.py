"""VidTok's network against the plain arrangement of it, on the same weights and clip."""

import os
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from pipelines.benchmarks.paired import cpu_seconds, ratio
from pipelines.benchmarks.vidtok_plain import PlainVidTok
from vtok.vidtok import load_model


class Speed(NamedTuple):
    """CPU time of the plain arrangement over that of the network; the limit is over that of its convolutions alone."""

    encode: float
    decode: float
    encode_limit: float
    decode_limit: float


@torch.no_grad()
def against_plain(name: str, ch: int = 128, frames: int = 17, size: int = 64, repeats: int = 3) -> Speed:
    """Of one clip of ``frames`` frames of ``size`` x ``size``."""
    model = load_model(name, ch=ch).eval()
    plain = PlainVidTok(model)
    clip = torch.rand(1, 3, frames, size, size) * 2 - 1
    z = model.encode(clip)
    model.decode(z), plain.decode(z), plain.encode(clip)  # the first of all is slow
    pairs = (
        (lambda: plain.encode(clip), lambda: model.moments(clip)),
        (lambda: plain.decode(z), lambda: model.decode(z)),
    )
    speeds = [ratio(cpu_seconds(theirs), cpu_seconds(ours), repeats) for theirs, ours in pairs]
    limits = [ratio(lambda: profiled(theirs)[0], lambda: profiled(ours)[1], repeats) for theirs, ours in pairs]
    return Speed(*speeds, *limits)


def profiled(work: Callable[[], object]) -> tuple[float, float]:
    """Returns the seconds of a piece of work's torch operations, and those of its convolutions."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler prints a line at each start and stop
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    taken = {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}
    return sum(taken.values()), sum(seconds for name, seconds in taken.items() if "conv" in name)
