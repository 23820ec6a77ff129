"""Batches to the device: the next one is copied while the model works on this one."""

from collections.abc import Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


class Movable(Protocol):
    """A tuple of tensors and other things, such as a batch."""

    def to(self, device: torch.device) -> "Movable": ...


M = TypeVar("M", bound=Movable)


def on_device(batches: Iterator[M], device: torch.device) -> Iterator[M]:
    """The same batches, which come from the CPU, on ``device``.

    To a GPU, from pinned memory, one is copied ahead on a stream of its own.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies = torch.cuda.Stream(device)
    ahead = None
    for batch in batches:
        with torch.cuda.stream(copies):
            following = batch.to(device), copies.record_event()
        if ahead is not None:
            yield arrived(*ahead)
        ahead = following
    if ahead is not None:
        yield arrived(*ahead)


def arrived(batch: M, copied: torch.cuda.Event) -> M:
    """The batch, for the current stream: that waits for the copy, and keeps its memory until it has used it."""
    stream = torch.cuda.current_stream()
    stream.wait_event(copied)
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor):
            leaf.record_stream(stream)
    return batch
