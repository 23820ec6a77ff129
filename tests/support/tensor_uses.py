"""Small uses of tensors on a device and on the CPU: which of them CUDA refuses, and in which the host waits.

The tables are those of :mod:`support.cuda_rules`; ``tests/run/test_tagged_device.py`` holds them against CUDA itself
where there is a GPU.
"""

from collections.abc import Callable
from typing import Any

import torch

PAGEABLE = "to the device, non_blocking"

REFUSED = {
    "elementwise, a host tensor", "elementwise, two host scalars", "written host scalar", "product",
    "product with a host scalar's row", "cat", "embedding", "index_select", "host tensor, index on the device",
    "host values put", "bucketize", "host generator", "bernoulli, host generator",
}  # fmt: skip
WAITING = {
    "where, a host scalar": "copies a host scalar to the device",
    "host scalar put": "copies a host scalar to the device",
    "host index": "copies host indices to the device",
    "assign values by a mask": "indexes by a boolean mask",
    "copy_ from the host": "copies to the device",
    "copy_ to the host": "copies to the host",
    "to the device": "copies to the device",
    "to the device, non_blocking": "copies to the device from memory that is not pinned",
    "made on the device from numbers": "copies to the device",
    "cpu": "copies to the host",
    "item": "reads a value",
    "tolist": "copies to the host",
    "bool": "reads a value",
    "equal": "reads a value",
    "mask": "indexes by a boolean mask",
    "masked_select": "the result's shape depends on values",
    "nonzero": "the result's shape depends on values",
    "bincount": "the result's shape depends on values",
    "unique": "the result's shape depends on values",
    "repeat_interleave": "the result's shape depends on values",
    "multinomial": "reads a value",
}


def uses(device: torch.device) -> dict[str, Callable[[], Any]]:
    """Uses of a tensor ``x`` (2, 3) on ``device`` and one ``c`` on the CPU, by name."""
    x, c, mask = torch.ones(2, 3, device=device), torch.ones(2, 3), torch.ones(2, 3, device=device) > 0
    host_index, index = torch.tensor([0, 1]), torch.zeros(2, dtype=torch.long, device=device)
    scalar, generator = torch.tensor(2.0), torch.Generator()
    return {
        "elementwise, a host tensor": lambda: x + c,
        "elementwise, a host scalar": lambda: x * scalar,
        "elementwise, two host scalars": lambda: torch.addcmul(x, scalar, scalar),
        "where, a host scalar": lambda: torch.where(mask, x, scalar),
        "where, two numbers": lambda: torch.where(mask, 1.0, 2.0),
        "written host scalar": lambda: scalar.clone().add_(x.sum()),
        "product": lambda: x @ c.T,
        "product with a host scalar's row": lambda: x @ scalar.expand(3),
        "cat": lambda: torch.cat([x, c]),
        "embedding": lambda: torch.nn.functional.embedding(host_index, x),
        "index_select": lambda: x.index_select(0, host_index),
        "host index": lambda: x[host_index],
        "host tensor, index on the device": lambda: c[index],
        "host values put": lambda: x.index_put((index,), c),
        "host scalar put": lambda: x.index_put((index,), scalar),
        "device index": lambda: x[index],
        "bucketize": lambda: torch.bucketize(x, c[0]),
        "host generator": lambda: torch.randn(2, device=device, generator=generator),
        "bernoulli, host generator": lambda: x.bernoulli(generator=generator),
        "fill with a number": lambda: x.fill_(1.0),
        "assign a number": lambda: x.__setitem__(0, 1.0),
        "assign a number by a mask": lambda: x.__setitem__(mask, 1.0),
        "assign values by a mask": lambda: x.__setitem__(mask, x.flatten().clone()),
        "copy_ from the host": lambda: x.copy_(c),
        "copy_ to the host": lambda: c.copy_(x),
        "copy_ to the host, non_blocking": lambda: c.copy_(x, non_blocking=True),
        "to the device": lambda: c.to(device),
        "to the device, non_blocking": lambda: c.to(device, non_blocking=True),
        "to the device, pinned and non_blocking": lambda: c.pin_memory().to(device, non_blocking=True),
        "to the device, empty": lambda: c[:0].to(device),
        "made on the device from numbers": lambda: torch.tensor([1.0], device=device),
        "made on the device": lambda: torch.full((), 3, device=device),
        "cast on the device": lambda: x.to(torch.bfloat16),
        "cpu": lambda: x.cpu(),
        "item": lambda: x.sum().item(),
        "tolist": lambda: x.tolist(),
        "bool": lambda: bool(x.sum() > 0),
        "equal": lambda: torch.equal(x, x),
        "mask": lambda: x[mask],
        "masked_select": lambda: x.masked_select(mask),
        "masked_fill": lambda: x.masked_fill(mask, 0.0),
        "nonzero": lambda: mask.nonzero(),
        "bincount": lambda: torch.bincount(index),
        "unique": lambda: torch.unique(index),
        "repeat_interleave": lambda: torch.repeat_interleave(index, index),
        "repeat_interleave, size given": lambda: torch.repeat_interleave(index, index, output_size=0),
        "multinomial": lambda: torch.multinomial(x, 1),
        "on the host": lambda: (c + c, c[c > 0], c.sum().item()),
    }  # fmt: skip
