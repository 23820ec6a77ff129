"""The card's ceilings, and matrix products as a block of the diffusion transformer asks for them."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.benchmarks.gpu import measure, published
from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.sizes import Sizes
from pipelines.planning.rates import Rates


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    """A large copy, a large product, and the double block's products at its own widths, weights frozen."""
    yield copying(sizes, device)
    left, right = (random(device, sizes.product, sizes.product) for _ in range(2))
    taken = measure.seconds(lambda: left @ right, device, 4 * sizes.repeats)
    yield Finding(f"product of two {sizes.product}-wide matrices", 2 * sizes.product**3 / taken, "FLOP/s")

    decoder = published.decoder(sizes)
    tokens, width = published.joint_tokens(decoder, sizes), published.width(decoder)
    weights = [random(device, *shape) for shape in ((width, width),) * 4 + ((4 * width, width), (width, 4 * width))]
    inputs = [random(device, tokens, weight.shape[1]) for weight in weights]
    outputs = [random(device, tokens, weight.shape[0]) for weight in weights]

    def products() -> None:
        for x, weight, gradient in zip(inputs, weights, outputs):
            F.linear(x, weight)
            gradient @ weight

    flops = sum(4 * tokens * weight.numel() for weight in weights)
    taken = measure.seconds(products, device, sizes.repeats)
    yield Finding(
        "products of a DiT block, forward and to the inputs", flops / taken, "FLOP/s", Rates().linear, rate="linear"
    )


def copying(sizes: Sizes, device: torch.device) -> Finding:
    source = random(device, sizes.copied // 2)
    target = torch.empty_like(source)
    taken = measure.seconds(lambda: target.copy_(source), device, sizes.repeats)
    rate, assumed = 2 * source.nbytes / taken, Rates().memory
    return Finding("copy on the device, read and written", rate, "bytes/s", assumed, rate="memory")


def random(device: torch.device, *shape: int) -> Tensor:
    """Normal draws in bf16."""
    return torch.randn(shape, device=device, dtype=torch.bfloat16)
