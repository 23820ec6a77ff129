"""VidTok's network against the plain arrangement of it, on the same weights and clip."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

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
    limits = [ratio(cpu_seconds(theirs), convolving(ours), repeats) for theirs, ours in pairs]
    return Speed(*speeds, *limits)


# A convolution over time is a product of matrices for each tap on a CPU.
CONVOLVING = (torch.ops.aten.convolution.default, torch.ops.aten.addmm.default, torch.ops.aten.addmm_.default)


class Convolutions(TorchDispatchMode):
    """Sums up the CPU time of the convolutions, and of products of matrices, that are computed in its context.

    Attributes:
        seconds: Their time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def __torch_dispatch__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> object:
        started = time.process_time()
        result = func(*args, **(kwargs or {}))
        if func in CONVOLVING:
            self.seconds += time.process_time() - started
        return result


def convolving(work: Callable[[], object]) -> Callable[[], float]:
    """Returns a function that does a piece of work and returns the CPU seconds of its convolutions."""

    def seconds() -> float:
        with Convolutions() as found:
            work()
        return found.seconds

    return seconds
