"""What CUDA makes of an operator's tensors: whether it refuses the devices they lie on, and whether the host waits.

Pure rules on one call of an ATen operator, for :mod:`support.tagged_device`. "The device" is the accelerator, "the
host" the CPU. The rules are PyTorch's:

mixtures        An operator takes the device's tensors only. Exceptions: one host scalar (0 dimensions) that an
                elementwise operator reads and does not write; a host index of a device tensor; a copy.
waits           What ``torch.cuda.set_sync_debug_mode`` reports: reading a value, results whose shape depends on values
                (a boolean mask is one), copies that are not ``non_blocking``; host indices and some host scalars are
                copied so. Also copies to the device from memory that is not pinned: the driver may wait to stage them.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

aten = torch.ops.aten

COPIES = (aten.copy_, aten._to_copy, aten._foreach_copy_)
INDEXED = (
    aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index_put,
)  # fmt: skip
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


def on_host(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def mixture(func: OpOverload, named: dict[str, Any]) -> str | None:
    """Why CUDA would refuse a call, or ``None``.

    Args:
        named: the call's arguments by their names in the schema; some tensor or ``device`` among them is the device's.
    """
    packet, every = func.overloadpacket, list(tensors_of(list(named.values())))
    here = [tensor for tensor in every if not on_host(tensor)]
    target = named.get("device") or (here[0].device if here else "cpu")
    generator = named.get("generator")
    if generator is not None and generator.device.type != torch.device(target).type:
        return "a generator of the host draws on the device"
    if not here or len(here) == len(every) or packet in COPIES:
        return None
    if packet in INDEXED:
        values = named.get("values")
        if on_host(named["self"]):
            return "a host tensor is indexed by the device's"
        bad = values is not None and on_host(values) and values.dim() > 0
        return "host values are put into a device tensor" if bad else None
    one = len(every) - len(here) == 1 or packet is aten.where
    takes_scalars = one and (torch.Tag.pointwise in func.tags or packet in SCALAR_TAKERS)
    for argument in func._schema.arguments:
        written = argument.alias_info is not None and argument.alias_info.is_write
        for tensor in filter(on_host, tensors_of(named.get(argument.name))):
            if written or not takes_scalars or tensor.dim():
                return f"{argument.name} {tuple(tensor.shape)} lies on {tensor.device}"
    return None


def wait(func: OpOverload, named: dict[str, Any]) -> str | None:
    """Why the host would wait for the device in a call, or ``None``; arguments as in :func:`mixture`."""
    packet, every = func.overloadpacket, list(tensors_of(list(named.values())))
    if packet in COPIES:
        return copy_waits(named)
    if all(map(on_host, every)):
        return None
    if packet in INDEXED:
        return index_waits(named)
    if packet is aten.where and any(map(on_host, every)):
        return "copies a host scalar to the device"
    if packet is aten.repeat_interleave and named.get("output_size") is not None:
        return None
    if torch.Tag.data_dependent_output in func.tags or packet in READERS:
        return "reads a value"
    return "the result's shape depends on values" if torch.Tag.dynamic_output_shape in func.tags else None


def copy_waits(named: dict[str, Any]) -> str | None:
    """That a copy waits: ``self`` is written with ``src``, or ``self`` is copied to ``device``."""
    if "src" in named:
        pairs = [(source, own.device) for own, source in zip(tensors_of(named["self"]), tensors_of(named["src"]))]
    else:
        pairs = [(named["self"], torch.device(named.get("device") or named["self"].device))]
    for source, target in pairs:
        if source.device.type == target.type or source.numel() == 0:
            continue
        if target.type == "cpu":
            return None if named.get("non_blocking") else "copies to the host"
        if not named.get("non_blocking"):
            return "copies to the device"
        return None if getattr(source, "pinned", False) else "copies to the device from memory that is not pinned"
    return None


def index_waits(named: dict[str, Any]) -> str | None:
    indices = [index for index in named["indices"] if index is not None]
    masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
    values = named.get("values")
    if values is not None and len(masks) == len(indices) == 1 and values.dim() == 0 and not named.get("accumulate"):
        return None  # becomes masked_fill
    if masks:
        return "indexes by a boolean mask"
    if any(on_host(index) and index.numel() for index in indices):
        return "copies host indices to the device"
    return "copies a host scalar to the device" if values is not None and on_host(values) else None
