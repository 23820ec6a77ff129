"""Tensors in memory shared with the trainer, so that frames from a loader process are not copied."""

import torch

_shares = False


def share_memory() -> None:
    """Make :func:`blank` take shared memory from now on in this process. A loader process calls it once."""
    global _shares
    _shares = True


def blank(shape: tuple[int, ...]) -> torch.Tensor:
    """uint8 zeros of `shape`; in a loader process they lie in shared memory."""
    if not _shares:
        return torch.zeros(shape, dtype=torch.uint8)
    count = torch.Size(shape).numel()
    # New shared memory is zero already; writing zeros would touch every page twice.
    return torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(count)).view(shape)


def stacked(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Stack uint8 tensors of one shape to (n, ...), in memory as `blank` gives it. A single tensor is not copied."""
    if len(tensors) == 1:
        return tensors[0][None]
    return torch.stack(tensors, out=blank((len(tensors), *tensors[0].shape)))
