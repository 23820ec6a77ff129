"""Attention at the shape of the diffusion transformer's, by kernel, with a mask and without."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipelines.benchmarks.gpu import measure, published
from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.products import random
from pipelines.benchmarks.gpu.sizes import Sizes
from pipelines.planning.rates import Rates

CHOSEN = "torch's choice"
BACKENDS = {
    CHOSEN: None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
RATES = {
    (CHOSEN, "no mask", "forward"): "attention",
    (CHOSEN, "no mask", "backward"): "attention_backward",
    (CHOSEN, "mask", "forward"): "masked_attention",
}


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    """FLOP/s. Backward counts as two forwards, as in a plan: what the kernel recomputes is left out."""
    decoder = published.decoder(sizes)
    tokens, heads = published.joint_tokens(decoder, sizes), decoder.transformer.config.num_attention_heads
    flops = 4 * tokens**2 * published.width(decoder)
    shape = 1, heads, tokens, published.width(decoder) // heads
    inputs = [random(device, *shape).requires_grad_() for _ in range(3)]
    gradient = random(device, *shape)
    mask = torch.ones(1, 1, 1, tokens, dtype=torch.bool, device=device)  # diffusers' shape
    mask[..., -sizes.text_rows // 2 :] = False
    for backend, kernel in BACKENDS.items():
        for masked, given in (("no mask", None), ("mask", mask)):
            attend = partial(F.scaled_dot_product_attention, *inputs, attn_mask=given)
            for direction, seconds, counted in (("forward", forward, flops), ("backward", backward, 2 * flops)):
                name, rate = f"{backend}, {masked}, {direction}", RATES.get((backend, masked, direction), "")
                planned = getattr(Rates(), rate) if rate else None
                try:
                    with only(kernel):
                        taken = seconds(attend, inputs, gradient, device, sizes.repeats)
                    yield Finding(name, counted / taken, "FLOP/s", planned, rate=rate)
                except RuntimeError as error:  # torch.OutOfMemoryError is one too
                    yield Finding(name, None, "FLOP/s", planned, note=str(error).splitlines()[0][:80])


def only(kernel: SDPBackend | None) -> AbstractContextManager:
    """Let torch take this kernel and no other, or choose for itself."""
    return nullcontext() if kernel is None else sdpa_kernel(kernel)


@torch.no_grad()
def forward(
    attend: Callable[[], Tensor], inputs: list[Tensor], gradient: Tensor, device: torch.device, repeats: int
) -> float:
    """Seconds of it."""
    return measure.seconds(attend, device, repeats)


def backward(
    attend: Callable[[], Tensor], inputs: list[Tensor], gradient: Tensor, device: torch.device, repeats: int
) -> float:
    """Seconds of it, without the forward before it."""
    back = partial(torch.autograd.grad, attend(), inputs, gradient, retain_graph=True)
    return measure.seconds(back, device, repeats)
