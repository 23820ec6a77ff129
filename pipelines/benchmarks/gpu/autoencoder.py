"""Encoding videos with HunyuanVideo's autoencoder at its own width."""

from collections.abc import Iterator

import torch

from pipelines.benchmarks.gpu import measure, published
from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.sizes import Sizes
from pipelines.metering.kinds import CONVOLUTION
from pipelines.metering.meter import Usage, metered
from pipelines.planning.rates import Rates
from pipelines.planning.time import seconds_of
from vtok.video_decoder.base import VideoDecoder

META = torch.device("meta")


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    """The decoder's view and further tiles; the convolutions' rate is that of the first."""
    decoder, empty = published.decoder(sizes), published.decoder(sizes)
    published.with_weights(decoder.vae, device)
    published.in_bf16(empty.vae)
    for shape in (sizes.video, *sizes.tiles):
        video = torch.randint(0, 256, (1, shape[0], 3, *shape[1:]), dtype=torch.uint8, device=device)
        planned = plan(empty, shape)
        seconds = measure.seconds(lambda: decoder.encode(video), device, sizes.repeats)
        peak = measure.peak_bytes(lambda: decoder.encode(video), device)
        name = "encode {} x {} x {}".format(*shape)
        yield Finding(name, seconds, "s", seconds_of(planned, Rates()).device)
        yield Finding(f"{name}, peak", peak, "bytes", planned.peak)
        if shape == sizes.video:
            operators = measure.trace(lambda: decoder.encode(video), device).operators
            inside = sum(taken for operator, taken in operators.items() if "conv" in operator)
            rate, assumed = planned.work[CONVOLUTION] / inside, Rates().convolution
            yield Finding("its convolutions, in their kernels", rate, "FLOP/s", assumed, rate="convolution")
            yield Finding("their share of its time", inside / seconds, "of 1")


def plan(empty: VideoDecoder, shape: tuple[int, int, int]) -> Usage:
    """Counted on the meta device."""
    video = torch.empty(1, shape[0], 3, *shape[1:], dtype=torch.uint8, device=META)
    return metered(lambda: empty.encode(video))
