"""Named phases of a training step. Profiler traces show them, and plans measure each one."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.profiler import record_function

# Tells these names from the names that libraries give to profilers.
PREFIX = "vtok: "


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Marks what runs inside as part of ``name``, and its backward pass too. Also works as a decorator."""
    with record_function(PREFIX + name):
        yield
