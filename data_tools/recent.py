"""A cache of the most recently used results. Unlike `functools.lru_cache`, it can be pickled with its owner."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Keeps the `size` most recently used values, by key."""

    def __init__(self, size: int):
        self.size = size
        self._values: dict[Hashable, T] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`; calls `make` if it is not kept."""
        value = self._values.pop(key) if key in self._values else make()
        while len(self._values) >= self.size:
            del self._values[next(iter(self._values))]
        self._values[key] = value  # at the dictionary's end: its order is that of use
        return value
