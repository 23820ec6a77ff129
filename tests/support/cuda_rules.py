"""What CUDA makes of an operator's tensors: whether it refuses the devices they lie on, and whether the host waits.

Pure rules on one call of an ATen operator, for :mod:`support.tagged_device`. "The device" is the accelerator, "the
host" the CPU. The rules are PyTorch's:

mixtures        An operator takes the device's tensors only. Exceptions: a host scalar (0 dimensions) in an elementwise
                operator, where it is read and not written; a host index of a device tensor; a copy.
waits           What ``torch.cuda.set_sync_debug_mode`` reports: reading a value, results whose shape depends on values
                (a boolean mask is one), copies that are not ``non_blocking``, host indices (they are copied so).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

aten = torch.ops.aten

COPIES = (aten.copy_, aten._to_copy, aten._foreach_copy_)
INDEXED = (aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_,
           aten._unsafe_index_put)  # fmt: skip
# They take a host scalar and are not tagged as pointwise.
SCALAR_TAKERS = (aten.masked_fill, aten.masked_fill_, aten.fill, aten.fill_, aten.floor_divide, aten.floor_divide_)
# They read a value on the way, and are not tagged as data-dependent.
READERS = (aten.multinomial,)


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors in an operator's arguments, in lists too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)


def mixture(func: OpOverload, named: dict[str, Any], device: torch.device) -> str | None:
    """Why CUDA would refuse a call, or ``None``.

    Args:
        named: the call's arguments by their names in the schema.
        device: the accelerator.
    """
    generator = named.get("generator")
    target = torch.device(named["device"]) if named.get("device") else None
    every = list(tensors_of(list(named.values())))
    on_device = [tensor for tensor in every if tensor.device.type == device.type]
    if generator is not None and generator.device.type == "cpu":
        if target.type == device.type if target is not None else on_device:
            return "a generator of the host draws on the device"
    if not on_device or len(on_device) == len(every) or func.overloadpacket in COPIES:
        return None
    if func.overloadpacket in INDEXED:
        if named["self"].device.type != device.type:
            return "a host tensor is indexed by the device's"
        values = named.get("values")
        bad = values is not None and values.device.type != device.type and values.dim() > 0
        return "host values are put into a device tensor" if bad else None
    takes_scalars = torch.Tag.pointwise in func.tags or func.overloadpacket in SCALAR_TAKERS
    for argument in func._schema.arguments:
        written = argument.alias_info is not None and argument.alias_info.is_write
        for tensor in tensors_of(named.get(argument.name)):
            if tensor.device.type != device.type and not (takes_scalars and tensor.dim() == 0 and not written):
                return f"{argument.name} {tuple(tensor.shape)} lies on {tensor.device}"
    return None


def wait(func: OpOverload, named: dict[str, Any], device: torch.device) -> str | None:
    """Why the host would wait for the device in a call, or ``None``; arguments as in :func:`mixture`."""

    def here(tensor: Tensor) -> bool:
        return tensor.device.type == device.type

    packet = func.overloadpacket
    if packet in COPIES:
        return copy_waits(packet, named, device)
    if packet in INDEXED:
        return index_waits(packet, named, device) if here(named["self"]) else None
    if not any(here(tensor) for tensor in tensors_of(list(named.values()))):
        return None
    if packet is aten.repeat_interleave and named.get("output_size") is not None:
        return None
    if torch.Tag.data_dependent_output in func.tags or packet in READERS:
        return "reads a value"
    return "the result's shape depends on values" if torch.Tag.dynamic_output_shape in func.tags else None


def copy_waits(packet: Any, named: dict[str, Any], device: torch.device) -> str | None:
    if named.get("non_blocking"):
        return None
    if packet is aten._to_copy:
        pairs = [(named["self"].device, torch.device(named.get("device") or named["self"].device), named["self"])]
    else:
        targets, sources = tensors_of(named["self"]), tensors_of(named["src"])
        pairs = [(source.device, target.device, target) for target, source in zip(targets, sources)]
    for source, target, tensor in pairs:
        if source.type != target.type and device.type in (source.type, target.type) and tensor.numel():
            return "copies to the device" if target.type == device.type else "copies to the host"
    return None


def index_waits(packet: Any, named: dict[str, Any], device: torch.device) -> str | None:
    indices = [index for index in named["indices"] if index is not None]
    masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
    values = named.get("values")
    if values is not None and len(masks) == len(indices) == 1 and values.dim() == 0 and not named.get("accumulate"):
        return None  # becomes masked_fill
    if masks:
        return "indexes by a boolean mask"
    host = any(index.device.type != device.type and index.numel() for index in indices)
    return "copies host indices to the device" if host else None
