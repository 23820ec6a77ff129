"""A table of modules of one type, by name."""

from collections.abc import ItemsView, Mapping, ValuesView
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


class ModuleTable(nn.ModuleDict, Generic[M]):
    """An ``nn.ModuleDict`` that tells type checkers what its modules are."""

    if TYPE_CHECKING:

        def __init__(self, modules: Mapping[str, M]) -> None: ...

        def __getitem__(self, key: str) -> M: ...

        def items(self) -> ItemsView[str, M]: ...

        def values(self) -> ValuesView[M]: ...
