"""Moves a module from the meta device to memory: every parameter gets its values, one parameter at a time.

A :data:`Place` decides where the values go: whole parameters in a notebook, this rank's shard under ZeRO-3. Their
source is the same in both cases.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from vtok.fp8 import reading
from vtok.lora import base_of, row_lengths
from vtok.weights import Part, shapes_of
from vtok.weights.precision import kept_in_fp32, stored_dtype

M = TypeVar("M", bound=nn.Module)

# Fills a flat tensor with a parameter's elements, from a given index on.
Read = Callable[[Tensor, int], None]
# Makes the parameter that replaces one on the meta device. The flag tells that it stays fp32.
Place = Callable[[nn.Parameter, Read, bool], nn.Parameter]
EMPTY: Mapping[str, Read] = {}


def whole(dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Place:
    """Places whole parameters on one device, in ``dtype`` unless they stay fp32 or are codes."""

    def place(parameter: nn.Parameter, read: Read, fp32: bool) -> nn.Parameter:
        values = torch.empty(parameter.shape, dtype=stored_dtype(parameter, dtype, fp32), device=device)
        read(values.view(-1), 0)
        return nn.Parameter(values, parameter.requires_grad)

    return place


@torch.no_grad()
def materialise(module: M, parts: Iterable[Part], place: Place, trained: Mapping[str, Read] = EMPTY) -> M:
    """Replaces every parameter of ``module`` and returns it.

    Parameters on the meta device are read from the checkpoints of ``parts``; a DoRA magnitude is computed from its
    layer's weight, and an fp8 layer's weight is rounded. The others keep their values. Buffers on the meta device are
    computed from the configuration.

    Args:
        module: The module.
        parts: Its pretrained parts.
        place: Makes the new parameters.
        trained: Reads parameters that were trained further, by name. These come before the parts and the values.

    Raises:
        ConfigError: A parameter is not in the checkpoint of its part or has another shape there, or the checkpoint
            holds weights that the part has no place for.
    """
    shapes = shapes_of(module)
    stored = {name: tensor for part in parts for name, tensor in part.all_tensors(shapes).items()}

    def read_of(name: str) -> Read:
        if name in trained:
            return trained[name]
        if name in stored:
            return stored[name].read_into
        base = base_of(name)
        return row_lengths(read_of(base), shapes[base][1]) if base in shapes else zeros

    kept = kept_in_fp32(module)
    placed: dict[nn.Parameter, nn.Parameter] = {}  # a tied parameter has several names; it is placed once
    for prefix, owner in module.named_modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            whole_name = f"{prefix}.{name}".lstrip(".")
            if parameter.is_meta:
                if parameter not in placed:
                    placed[parameter] = place(parameter, reading(owner, prefix, name, read_of), parameter in kept)
                setattr(owner, name, placed[parameter])
            else:
                read = trained.get(whole_name) or partial(read_from, parameter)
                setattr(owner, name, place(parameter, read, parameter in kept))
        for name, buffer in list(owner.named_buffers(recurse=False)):
            if buffer.is_meta:
                setattr(owner, name, computed_buffer(owner, name))
    return module


def zeros(flat: Tensor, start: int) -> None:
    """Reads the magnitude of a layer that has been left without weights."""
    flat.zero_()


def read_from(parameter: nn.Parameter, flat: Tensor, start: int) -> None:
    """Copies a parameter's elements from ``start`` on into ``flat``."""
    flat.copy_(parameter.detach().view(-1)[start : start + flat.numel()])


def computed_buffer(owner: nn.Module, name: str) -> Tensor:
    """Computes a library module's buffer that no checkpoint holds: rotary frequencies (fp32) or positions."""
    buffer = getattr(owner, name)
    if name == "position_ids":
        return torch.arange(buffer.shape[-1]).expand(buffer.shape)
    if name in ("inv_freq", "original_inv_freq"):
        return getattr(type(owner)(owner.config), name)
    if name in ("freqs_cos", "freqs_sin"):
        return getattr(type(owner)(owner.attention_head_dim, owner.patch_size, owner.max_seq_len), name)
    raise NotImplementedError(f"no rule to compute the buffer {name} of {type(owner).__name__}")
