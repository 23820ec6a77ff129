"""Frames too large for memory: tiles with an overlap in which their results are blended.

Attention sees the whole frame, and the norm and zero padding know its edges; a tile has its own. So the result is near
that of the whole, not equal to it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vtok.config import require


def blended_tiles(x: Tensor, tile: int, overlap: int, scale: float, operation: Callable[[Tensor], Tensor]) -> Tensor:
    """``operation`` on square tiles of (B, T, H, W, C), joined.

    Args:
        tile, overlap: sides in pixels of ``x``; a tile at the edge overlaps more, so that all have the same size.
        scale: pixels of the result per pixel of ``x``.
    """
    rows, columns = (tile_starts(side, tile, overlap) for side in x.shape[2:4])
    total = weights = None
    for top in rows:
        for left in columns:
            part = operation(x[:, :, top : top + tile, left : left + tile])
            if total is None:
                height, width = (round(side * scale) for side in x.shape[2:4])
                total = part.new_zeros(*part.shape[:2], height, width, part.shape[-1])
                weights = part.new_zeros(height, width, 1)
            weight = torch.outer(*(ramp(side, round(overlap * scale), part) for side in part.shape[2:4])).unsqueeze(-1)
            first, second = round(top * scale), round(left * scale)
            rows_here, columns_here = slice(first, first + part.shape[2]), slice(second, second + part.shape[3])
            total[:, :, rows_here, columns_here] += weight * part
            weights[rows_here, columns_here] += weight
    return total / weights


def tile_starts(side: int, tile: int, overlap: int) -> list[int]:
    """Of tiles that cover ``side``."""
    require(0 <= overlap < tile, f"the overlap of tiles must be less than their side of {tile}, not {overlap}")
    last = max(side - tile, 0)
    return [*range(0, last, tile - overlap), last]


def ramp(side: int, overlap: int, like: Tensor) -> Tensor:
    """Weights (side,) that rise over the overlap, stay at one, and fall."""
    distance = torch.arange(side, device=like.device) + 0.5
    return (torch.minimum(distance, side - distance) / max(overlap, 1)).clamp(max=1).to(like.dtype)
