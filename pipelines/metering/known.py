"""Keeps the values of index tensors on the meta device, where tensors have no values.

A forward may read values from the device: which rows a mask selects, or whether positions are consecutive. Index
tensors come from the host, so their values can be kept there. An operator whose arguments are all known also runs on
the host, so its result is known too.
"""

import weakref
from typing import Any

import torch
from torch import Tensor

from pipelines.metering.results import result_of

Arguments = tuple[Any, ...]

aten = torch.ops.aten


class KnownValues:
    """Values of integer and boolean tensors that were copied to the meta device, and of results computed from them."""

    def __init__(self):
        # Keyed by storage, so that views and in-place writes share the same values.
        self._values: dict[int, tuple[weakref.ref, Tensor]] = {}

    def call(self, func: torch._ops.OpOverload, args: Arguments, kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        """Runs an operator for a dispatch mode and returns its result.

        Args:
            func: The operator.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            given: All tensors among its arguments.
        """
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
        """Returns a tensor's values on the CPU, or ``None`` if they are not known."""
        if x.dtype.is_floating_point or x.untyped_storage()._cdata not in self._values:
            return None
        _, values = self._values[x.untyped_storage()._cdata]
        return values.as_strided(x.shape, x.stride(), x.storage_offset())

    def _on_the_host(self, func: torch._ops.OpOverload, args: Arguments, kwargs: dict[str, Any]) -> Any:
        """Runs an operator whose arguments are all known on the host."""
        stays = kwargs.get("device") in (None, torch.device("meta"))
        host = {name: self._replaced(value) for name, value in kwargs.items()}
        if "device" in host:
            host["device"] = torch.device("cpu")
        result = func(*self._replaced(args), **host)
        if func._schema.is_mutable:
            return args[0]  # the operator wrote its values in place
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
        """Replaces a known mask with the positions that it selects, one index per dimension. Keeps any other index."""
        if index is None or index.dtype != torch.bool or self.of(index) is None:
            return [index]
        selected = self.of(index).nonzero(as_tuple=True)
        return [self._remembered(torch.empty_like(x, device="meta"), x) for x in selected]
