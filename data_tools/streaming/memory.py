"""Tensors in memory shared with the trainer, so that frames from a loader process are not copied."""

import torch
from torch.utils.data import get_worker_info


def blank(shape: tuple[int, ...]) -> torch.Tensor:
    """uint8 zeros of `shape`; in a loader process they lie in shared memory."""
    if get_worker_info() is None:
        return torch.zeros(shape, dtype=torch.uint8)
    count = torch.Size(shape).numel()
    # New shared memory is zero already; writing zeros would touch every page twice.
    return torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(count)).view(shape)


def stacked(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Stack uint8 tensors of one shape to (n, ...), in memory as `blank` gives it. A single tensor is not copied."""
    if len(tensors) == 1:
        return tensors[0][None]
    return torch.stack(tensors, out=blank((len(tensors), *tensors[0].shape)))
