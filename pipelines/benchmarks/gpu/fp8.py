"""fp8: matrix products as a block of the diffusion transformer asks for them, and its blocks with fp8 weights."""

from collections.abc import Iterator

import torch

from pipelines.benchmarks.gpu import measure, published
from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.products import random
from pipelines.benchmarks.gpu.sizes import Sizes
from pipelines.benchmarks.gpu.transformer import plan, training_step
from pipelines.planning.rates import Rates
from vtok.fp8 import E4M3, fp8_product, rounded

FORMS = (None, "weights", "dynamic")
META = torch.device("meta")


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    yield from products(sizes, device)
    for form in FORMS:
        decoder, empty = (published.decoder(sizes, fp8=form) for _ in range(2))
        published.with_weights(decoder.transformer, device)
        published.in_bf16(empty.transformer)
        step, planned = training_step(decoder, sizes, device), plan(empty, sizes)
        name = f"a double and a single block, {f'fp8 {form}' if form else 'bf16'}, forward and backward"
        yield Finding(name, measure.seconds(step, device, sizes.repeats), "s", planned.seconds)
        yield Finding(f"{name}, peak", measure.peak_bytes(step, device), "bytes", planned.peak)
        held = sum(parameter.nbytes for stack in decoder.block_stacks() for parameter in stack.parameters())
        yield Finding(f"{name}, weights", held, "bytes")


def products(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    """The products into and out of a double block's MLP: with inputs that are rounded before, and with the rounding."""
    decoder = published.decoder(sizes)
    tokens, width = published.joint_tokens(decoder, sizes), published.width(decoder)
    inputs = [random(device, tokens, inner) for inner in (width, 4 * width)]
    weights = [rounded(random(device, outer, inner)) for outer, inner in ((4 * width, width), (width, 4 * width))]
    ready = [rounded(x) for x in inputs]

    def alone() -> None:
        for (left, scale), (right, own) in zip(ready, weights):
            torch._scaled_mm(
                left, right.view(E4M3).t(), scale_a=scale[:, None], scale_b=own[None], out_dtype=torch.bfloat16
            )

    def with_rounding() -> None:
        for x, (right, own) in zip(inputs, weights):
            fp8_product(x, right.view(E4M3).t(), own)

    flops = sum(2 * tokens * right.numel() for right, _ in weights)
    taken = measure.seconds(alone, device, sizes.repeats)
    yield Finding("fp8 products of a DiT block's MLP", flops / taken, "FLOP/s", Rates().fp8, rate="fp8")
    taken = measure.seconds(with_rounding, device, sizes.repeats)
    yield Finding("the same, with rounding the inputs", flops / taken, "FLOP/s")
