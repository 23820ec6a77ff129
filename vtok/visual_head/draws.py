"""Random draws of rows, on the CPU: so a seed gives the same samples on every device.

One generator may serve all rows, or each row has its own. With its own a row's draws do not depend on the others.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None


def normal(like: Tensor, generators: Generators) -> Tensor:
    """Draws standard normal values in the shape of ``like`` (n, ...), fp32."""
    return _drawn(lambda rows, own: torch.randn(rows.shape, generator=own), like, generators)


def categories(probabilities: Tensor, generators: Generators) -> Tensor:
    """Draws the index of a category from each of the distributions (n, ..., k): (n, ...)."""
    return _drawn(
        lambda rows, own: torch.multinomial(rows.flatten(0, -2), 1, generator=own).view(rows.shape[:-1]),
        probabilities.cpu(),
        generators,
    )


def _drawn(draw: Callable[[Tensor, torch.Generator | None], Tensor], rows: Tensor, generators: Generators) -> Tensor:
    if isinstance(generators, Sequence):
        return torch.cat([draw(row[None], own) for row, own in zip(rows, generators, strict=True)])
    return draw(rows, generators)
