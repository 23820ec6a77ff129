"""The work of an operator: FLOPs of some kind, or the bytes that it reads and writes.

The kinds have the names of the rates in :class:`pipelines.planning.rates.Rates`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from pipelines.metering.results import described

LINEAR, FP8, CONVOLUTION, MEMORY = "linear", "fp8", "convolution", "memory"
ATTENTION, ATTENTION_BACKWARD, MASKED_ATTENTION = "attention", "attention_backward", "masked_attention"

FLOP_KINDS = (LINEAR, FP8, ATTENTION, ATTENTION_BACKWARD, MASKED_ATTENTION, CONVOLUTION)

aten = torch.ops.aten

# Attention as one kernel, also on the meta device.
FUSED = aten._scaled_dot_product_flash_attention_for_cpu
FUSED_BACKWARD = aten._scaled_dot_product_flash_attention_for_cpu_backward

CONVOLUTIONS = {aten.convolution, aten._convolution, aten.convolution_backward}

# Operators that read only as much of their first argument as they return.
LOOKUPS = {aten.embedding, aten.index, aten.index_select, aten.gather}

# Operators that only write: they read no tensor, not even one whose shape they take.
FILLS = {
    aten.zeros, aten.zeros_like, aten.new_zeros, aten.ones, aten.ones_like, aten.new_ones, aten.full, aten.full_like,
    aten.new_full, aten.arange,
}  # fmt: skip

# Operators that neither read nor write memory.
EMPTY = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided}

# FLOPs by operator and shapes, since torch's formulas are slower than a table.
_flops: dict[tuple, int] = {}


def work_of(
    func: torch._ops.OpOverload, args: Any, kwargs: Any, out: Any, read: list[Tensor], written: list[Tensor]
) -> tuple[str, int]:
    """Returns the kind and amount of an operator's work. A view has none.

    Args:
        func: The operator.
        args, kwargs, out: Its arguments and its result.
        read, written: The tensors among them that lie on the device.
    """
    operator = func._overloadpacket
    if operator is FUSED:
        return MASKED_ATTENTION if kwargs.get("attn_mask") is not None else ATTENTION, attention_flops(*args[:3])
    if operator is FUSED_BACKWARD:  # gradients of the two products are two products each
        masked = kwargs.get("attn_mask") is not None
        return MASKED_ATTENTION if masked else ATTENTION_BACKWARD, 2 * attention_flops(*args[1:4])
    if operator in flop_registry:
        key = operator, described(args), described(kwargs)
        if key not in _flops:
            _flops[key] = flop_registry[operator](*args, **kwargs, out_val=out)
        kind = CONVOLUTION if operator in CONVOLUTIONS else FP8 if operator is aten._scaled_mm else LINEAR
        return kind, _flops[key]
    return MEMORY, moved_bytes(func, read, written)


def attention_flops(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Counts both products of an attention forward on (B, heads, length, d). Query heads may share key heads."""
    return 2 * query.shape[:-1].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])


def moved_bytes(func: torch._ops.OpOverload, read: list[Tensor], written: list[Tensor]) -> int:
    """Counts the bytes that an operator without FLOPs reads and writes."""
    operator, storages = func._overloadpacket, {x.untyped_storage()._cdata for x in read}
    is_view = not func._schema.is_mutable and all(x.untyped_storage()._cdata in storages for x in written)
    if is_view or operator in EMPTY:
        return 0
    total = sum(map(size_of, written))
    if operator in LOOKUPS:
        return 2 * total
    return total + (0 if operator in FILLS else sum(map(size_of, read)))


def size_of(x: Tensor) -> int:
    """Returns the bytes of a tensor. Elements that strides repeat count once."""
    return min(x.numel() * x.itemsize, x.untyped_storage().nbytes())
