"""Copies small tensors to a device without waiting for it.

``torch.tensor(..., device=...)`` and a plain ``.to(device)`` make the host wait until the GPU has done all its queued
work. A training step needs many small index tensors. They depend on lengths only, so they are made on the CPU.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Copies a CPU tensor to ``device``. The copy to an accelerator comes from pinned memory and does not block."""
    if torch.device(device).type in ("cpu", "meta"):
        return values.to(device)
    return values.contiguous().pin_memory().to(device, non_blocking=True)


def indices_on_device(device: torch.device, *columns: Sequence[int]) -> tuple[Tensor, ...]:
    """Copies each column of numbers to ``device`` as an ``int64`` tensor (n,), all in one copy."""
    together = torch.tensor([number for column in columns for number in column], dtype=torch.long)
    return to_device(together, device).split([len(column) for column in columns])
