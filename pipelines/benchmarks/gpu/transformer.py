"""The diffusion transformer's blocks at their own width: time and memory of one block, by difference of depths."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from pipelines.benchmarks.gpu import measure, published
from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.products import random
from pipelines.benchmarks.gpu.sizes import Sizes
from pipelines.metering.meter import metered
from pipelines.planning.rates import Rates
from pipelines.planning.time import seconds_of
from vtok.video_decoder.hunyuan import Conditioning, HunyuanDecoder

META = torch.device("meta")
DEPTHS = (2, 2), (3, 2), (3, 3)  # double and single blocks


class Cost(NamedTuple):
    """Of a forward and backward, checkpointed, gradients to the conditioning only."""

    seconds: float
    peak: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds - other.seconds, self.peak - other.peak)


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    decoder, empty = (published.decoder(sizes, *DEPTHS[-1]) for _ in range(2))
    published.with_weights(decoder.transformer, device)
    published.in_bf16(empty.transformer)
    measured, planned = [], []
    for depths in DEPTHS:
        with cut(decoder, *depths), cut(empty, *depths):
            measured.append(cost(decoder, sizes, device))
            planned.append(plan(empty, sizes))
        name = "{} double and {} single blocks, forward and backward".format(*depths)
        yield Finding(name, measured[-1].seconds, "s", planned[-1].seconds)
        yield Finding(f"{name}, peak", measured[-1].peak, "bytes", planned[-1].peak)
    for name, more, fewer in (("a double block", 1, 0), ("a single block", 2, 1)):
        own, expected = measured[more] - measured[fewer], planned[more] - planned[fewer]
        yield Finding(f"{name} more, forward and backward", own.seconds, "s", expected.seconds)
        yield Finding(f"{name} more, peak", own.peak, "bytes", expected.peak)


@contextmanager
def cut(decoder: HunyuanDecoder, *depths: int) -> Iterator[None]:
    """Let the decoder have only the first so many blocks of each kind."""
    whole = decoder.block_stacks()
    for name, blocks, depth in zip(decoder.stacks, whole, depths):
        setattr(decoder.transformer, name, blocks[:depth])
    try:
        yield
    finally:
        for name, blocks in zip(decoder.stacks, whole):
            setattr(decoder.transformer, name, blocks)


def cost(decoder: HunyuanDecoder, sizes: Sizes, device: torch.device) -> Cost:
    """As measured."""
    step = training_step(decoder, sizes, device)
    seconds = measure.seconds(step, device, sizes.repeats)
    return Cost(seconds, measure.peak_bytes(step, device))


def plan(empty: HunyuanDecoder, sizes: Sizes) -> Cost:
    """As counted on the meta device, at the rates that are assumed where none were measured."""
    usage = metered(training_step(empty, sizes, META))
    return Cost(seconds_of(usage, Rates()).device, usage.peak)


def training_step(decoder: HunyuanDecoder, sizes: Sizes, device: torch.device) -> measure.Work:
    """Forward and backward of the transformer on one clip whose conditioning is full."""
    latents = random(device, 1, *decoder.latent_shape(*sizes.video))
    pooled = random(device, 1, decoder.transformer.config.pooled_projection_dim)
    rows = random(device, 1, sizes.text_rows, sizes.states).requires_grad_()
    sigma = torch.rand(1, 1, 1, 1, 1, device=device)

    def step() -> None:
        rows.grad = None
        velocity = decoder.velocity(latents, sigma, Conditioning(rows, [sizes.text_rows], pooled))
        velocity.float().square().mean().backward()

    return step
