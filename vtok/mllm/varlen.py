"""Kernels that attend within rows of unequal length in one call ("variable length" flash attention), by what is there.

torch's own (``torch.nn.attention.varlen``, if it knows grouped heads) comes first, then that of the package flash-attn.
Both run on a GPU in bf16 or fp16 only. Where there is none, the caller runs its rows one by one.

A call instead of one per row saves kernel launches: a packed micro-batch of short rows keeps the host busier than the
device. The diffusion transformer has no use for it: its rows are clips of 22,000 tokens and more, and each fills a GPU.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from vtok.devices import to_device

# Attends causally: queries (L, heads, d), keys and values (L, key heads, d), bounds (rows + 1,), longest row, scale.
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, float | None], Tensor]


def kernel_for(query: Tensor) -> Kernel | None:
    """Returns the kernel for queries of this device and dtype, or ``None``."""
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16):
        return None
    return installed_kernel()


@cache
def installed_kernel() -> Kernel | None:
    """Returns torch's kernel, or else flash-attn's, or else ``None``."""
    for module, name, adapted in (
        ("torch.nn.attention.varlen", "varlen_attn", of_torch),
        ("flash_attn", "flash_attn_varlen_func", of_flash_attn),
    ):
        function = function_of(module, name)
        if function is not None and (adapted is not of_torch or "enable_gqa" in signature(function).parameters):
            return adapted(function)
    return None


def function_of(module: str, name: str) -> Callable | None:
    """Returns a function of a module that may not be installed, or may not have it."""
    parent = module.partition(".")[0]
    if find_spec(parent) is None or (parent != module and find_spec(module) is None):
        return None
    return getattr(import_module(module), name, None)


def of_torch(function: Callable[..., Any]) -> Kernel:
    """Adapts ``torch.nn.attention.varlen.varlen_attn``. A window to the left only is causal."""

    def attend(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, scale: float | None) -> Tensor:
        grouped = k.shape[1] != q.shape[1]
        return function(q, k, v, bounds, bounds, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=grouped)

    return attend


def of_flash_attn(function: Callable[..., Any]) -> Kernel:
    """Adapts ``flash_attn.flash_attn_varlen_func``."""

    def attend(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, scale: float | None) -> Tensor:
        return function(q, k, v, bounds, bounds, longest, longest, softmax_scale=scale, causal=True)

    return attend


def row_bounds(lengths: list[int], device: torch.device) -> Tensor:
    """Returns where rows begin and the last one ends, (rows + 1,) int32, copied without waiting for the device."""
    return to_device(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), device)
