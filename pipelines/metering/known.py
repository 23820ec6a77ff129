"""Values of index tensors on the meta device, where tensors have none.

A forward may ask a device for values: which rows a mask selects, whether positions are in one line. Index tensors come
from the host, so that their values can be kept beside them, and what is computed from such tensors alone is computed on
the host too.
"""

import weakref
from typing import Any

import torch
from torch import Tensor

from pipelines.metering.results import result_of

Arguments = tuple[Any, ...]

aten = torch.ops.aten


class KnownValues:
    """Of integer and boolean tensors that were copied to the meta device, and of what follows from them."""

    def __init__(self):
        # By storage, so that views and what is written in place are told from the same values.
        self._values: dict[int, tuple[weakref.ref, Tensor]] = {}

    def call(self, func: torch._ops.OpOverload, args: Arguments, kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        """What an operator returns, as a dispatch mode is asked for it; ``given`` are the tensors in its arguments."""
        on_meta = [x for x in given if x.is_meta]
        if func is aten._to_copy.default and not on_meta:
            return self._remembered(func(*args, **kwargs), args[0])
        if not on_meta or func.is_view:
            return func(*args, **kwargs)
        if func is aten.index.Tensor:
            args = args[0], [position for index in args[1] for position in self._positions(index)]
        if all(self.of(x) is not None for x in on_meta):
            return self._on_the_host(func, args, kwargs)
        if func._schema.is_mutable:
            self._values.pop(args[0].untyped_storage()._cdata, None)
        return result_of(func, args, kwargs, given)

    def of(self, x: Tensor) -> Tensor | None:
        """A tensor's values, on the CPU; ``None`` where they are not known."""
        if x.dtype.is_floating_point or x.untyped_storage()._cdata not in self._values:
            return None
        _, values = self._values[x.untyped_storage()._cdata]
        return values.as_strided(x.shape, x.stride(), x.storage_offset())

    def _on_the_host(self, func: torch._ops.OpOverload, args: Arguments, kwargs: dict[str, Any]) -> Any:
        """An operator whose arguments are all known."""
        stays = kwargs.get("device") in (None, torch.device("meta"))
        host = {name: self._replaced(value) for name, value in kwargs.items()}
        if "device" in host:
            host["device"] = torch.device("cpu")
        result = func(*self._replaced(args), **host)
        if func._schema.is_mutable:
            return args[0]  # its values were written to in place
        if isinstance(result, Tensor) and stays:
            out = torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device="meta")
            return self._remembered(out, result)
        return result

    def _remembered(self, x: Tensor, values: Tensor) -> Tensor:
        if x.is_meta and not x.dtype.is_floating_point:
            flat = torch.empty(x.untyped_storage().nbytes() // x.itemsize, dtype=x.dtype)
            flat.as_strided(x.shape, x.stride(), x.storage_offset()).copy_(values)
            key = x.untyped_storage()._cdata
            forget = weakref.ref(x.untyped_storage(), lambda _: self._values.pop(key, None))
            self._values[key] = forget, flat
        return x

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.of(value) if value.is_meta else value
        return type(value)(map(self._replaced, value)) if isinstance(value, (list, tuple)) else value

    def _positions(self, index: Tensor | None) -> list[Tensor | None]:
        """An index; in the place of a known mask the positions that it selects, an index for each of its dimensions."""
        if index is None or index.dtype != torch.bool or self.of(index) is None:
            return [index]
        selected = self.of(index).nonzero(as_tuple=True)
        return [self._remembered(torch.empty_like(x, device="meta"), x) for x in selected]
