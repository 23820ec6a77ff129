"""What operators return on the meta device, remembered by the shapes of their arguments.

Torch computes the shapes of many results in Python, a hundred times slower than a look at a table, and a step asks for
the same ones in every layer.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Shape(NamedTuple):
    """All there is of a tensor on the meta device."""

    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor) -> "Shape":
        return cls(x.shape, x.stride(), x.dtype)

    def empty(self) -> Tensor:
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device="meta")


_results: dict[tuple, Any] = {}


def result_of(func: torch._ops.OpOverload, args: tuple, kwargs: dict[str, Any], given: list[Tensor]) -> Any:
    """An operator's result; it is no view, and some of the ``given`` tensors among its arguments lie on "meta"."""
    if func._schema.is_mutable:
        return func(*args, **kwargs)
    key = func, described(args), described(kwargs)
    if key in _results:
        return made(_results[key])
    result = func(*args, **kwargs)
    if all_fresh(result, given):
        _results[key] = shapes_of(result)
    return result


def described(value: Any) -> Any:
    """An argument as a key: equal for those that give results of equal shapes."""
    if isinstance(value, Tensor):
        return value.device.type, Shape.of(value)
    if isinstance(value, (list, tuple)):
        return tuple(map(described, value))
    if isinstance(value, dict):
        return tuple((name, described(entry)) for name, entry in value.items())
    return type(value), value  # 1, 1.0 and True are equal, but not alike


def all_fresh(result: Any, given: list[Tensor]) -> bool:
    """Whether a result is made of dense tensors of its own, on the meta device."""
    storages = {x.untyped_storage()._cdata for x in given}
    return isinstance(result, (Tensor, tuple)) and all(
        x.is_meta and x.untyped_storage()._cdata not in storages
        and x.untyped_storage().nbytes() == Shape.of(x).empty().untyped_storage().nbytes()
        for x in tensors([result])
    )  # fmt: skip


def shapes_of(result: Any) -> Any:
    """A result with shapes in the place of tensors."""
    if isinstance(result, Tensor):
        return Shape.of(result)
    return tuple(map(shapes_of, result)) if isinstance(result, tuple) else result


def made(shapes: Any) -> Any:
    """A result of such shapes."""
    if isinstance(shapes, Shape):
        return shapes.empty()
    return tuple(map(made, shapes)) if isinstance(shapes, tuple) else shapes


def tensors(values: Iterable[Any]) -> list[Tensor]:
    """All tensors among some arguments or results, and in lists of them."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += tensors(value)
    return found
