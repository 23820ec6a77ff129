"""Small tensors on their way to a device, without waiting for it.

``torch.tensor(..., device=...)`` and a plain ``.to(device)`` make the host wait until a GPU has done all that it was
given before. A training step has many small index tensors, made on the CPU since they follow from lengths alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """A CPU tensor on ``device``: a copy from pinned memory that nobody waits for, where there is an accelerator."""
    if torch.device(device).type in ("cpu", "meta"):
        return values.to(device)
    return values.contiguous().pin_memory().to(device, non_blocking=True)


def indices_on_device(device: torch.device, *columns: Sequence[int]) -> tuple[Tensor, ...]:
    """Each column of numbers as an ``int64`` tensor (n,) on ``device``; all of them in one copy."""
    together = torch.tensor([number for column in columns for number in column], dtype=torch.long)
    return to_device(together, device).split([len(column) for column in columns])
