"""Frames where the trainer can see them: a loader process draws into memory that it shares, so nothing is copied."""

import torch
from torch.utils.data import get_worker_info


def blank(shape: tuple[int, ...]) -> torch.Tensor:
    """uint8 zeros of `shape`; in a loader process, in memory shared with the trainer."""
    if get_worker_info() is None:
        return torch.zeros(shape, dtype=torch.uint8)
    count = torch.Size(shape).numel()
    # What the system hands out is zero already; to write zeros would touch every page twice.
    return torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(count), 0, shape)


def stacked(tensors: list[torch.Tensor]) -> torch.Tensor:
    """uint8 tensors of one shape → (n, ...), in memory as that of `blank`. A single one is not copied."""
    if len(tensors) == 1:
        return tensors[0][None]
    return torch.stack(tensors, out=blank((len(tensors), *tensors[0].shape)))
