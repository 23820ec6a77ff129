"""Named phases of a training step: profiler traces show them, and plans count by them."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.profiler import record_function

# Tells these names from those that libraries give to profilers.
PREFIX = "vtok: "


@contextmanager
def phase(name: str) -> Iterator[None]:
    """What runs inside belongs to ``name``; so does its backward pass, which runs later (also a decorator)."""
    with record_function(PREFIX + name):
        yield
