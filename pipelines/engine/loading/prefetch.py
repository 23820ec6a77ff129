"""Copies batches to the device: the next one while the model works on the present one."""

from collections.abc import Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only


class Movable(Protocol):
    """A tuple of tensors and other things, such as a batch."""

    def to(self, device: torch.device) -> "Movable": ...


M = TypeVar("M", bound=Movable)


def on_device(batches: Iterator[M], device: torch.device) -> Iterator[M]:
    """Yields batches from the CPU on ``device``.

    For a GPU it copies one batch in advance, from pinned memory, on a stream of its own.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies = torch.cuda.Stream(device)
    ahead = None
    for batch in batches:
        pinned = tree_map_only(Tensor, Tensor.pin_memory, batch)
        with torch.cuda.stream(copies):
            following = pinned.to(device), copies.record_event()
        if ahead is not None:
            yield arrived(*ahead)
        ahead = following
    if ahead is not None:
        yield arrived(*ahead)


def arrived(batch: M, copied: torch.cuda.Event) -> M:
    """Hands a batch to the current stream, which waits for the copy. Keeps its memory until the stream has used it."""
    stream = torch.cuda.current_stream()
    stream.wait_event(copied)
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor):
            leaf.record_stream(stream)
    return batch
