"""A few of the language model's layers at their own width, on packed rows; which kernels take their time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipelines.benchmarks.gpu import measure, published
from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.products import random
from pipelines.benchmarks.gpu.sizes import Sizes
from pipelines.metering.meter import metered
from pipelines.planning.rates import Rates
from pipelines.planning.time import seconds_of
from vtok.mllm import packed_attention
from vtok.mllm.base import MLLM
from vtok.mllm.varlen import installed_kernel

META = torch.device("meta")
LAYERS = 4  # of 32; the decoder reads the states after the second
SHOWN = 8  # kernels


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    """Forward and backward, checkpointed, with the weights' gradients."""
    model = published.language_model(sizes, LAYERS)
    step = training_step(published.with_weights(model, device), sizes, device)
    empty = published.in_bf16(published.language_model(sizes, LAYERS))
    planned = metered(training_step(empty, sizes, META))
    name = f"{LAYERS} layers, {sum(sizes.packed)} packed tokens, forward and backward"
    seconds = measure.seconds(step, device, sizes.repeats)
    yield Finding(name, seconds, "s", seconds_of(planned, Rates()).device)
    yield Finding(f"{name}, peak with gradients", measure.peak_bytes(step, device), "bytes", planned.peak)
    yield Finding("rate of it", planned.flops / seconds, "FLOP/s", Rates().linear)

    own = installed_kernel()
    name = "packed rows one by one / in one call, time"
    if device.type == "cuda" and own is not None:
        with rows_one_by_one():
            apart = measure.seconds(step, device, sizes.repeats)
        yield Finding(name, apart / seconds, "of 1")
    else:
        yield Finding(name, None, "of 1", note="no kernel for rows of unequal length here")

    traced = measure.trace(step, device)
    total = sum(kernel.seconds for kernel in traced.kernels)
    yield Finding("the device's share of that time", traced.busy / seconds, "of 1")
    for kernel in traced.kernels[:SHOWN]:
        yield Finding(f"share of {kernel.calls} x {kernel.name[:60]}", kernel.seconds / total, "of 1")


@contextmanager
def rows_one_by_one() -> Iterator[None]:
    """Within, packed rows are attended one call a row, as where there is no kernel for rows of unequal length."""
    own = packed_attention.kernel_for
    packed_attention.kernel_for = lambda query: None
    try:
        yield
    finally:
        packed_attention.kernel_for = own


def training_step(model: MLLM, sizes: Sizes, device: torch.device) -> measure.Work:
    embeddings = random(device, 1, sum(sizes.packed), model.dim).requires_grad_()
    model.train()

    def step() -> None:
        embeddings.grad = None
        hidden = model(embeddings, list(sizes.packed))
        (hidden.last.float().square().mean() + hidden.conditioning.float().square().mean()).backward()
        model.zero_grad(set_to_none=True)

    return step
