"""Works on frames that are too large for memory in overlapping tiles, and blends the results.

The result is close to that of whole frames, not equal. Attention sees the whole frame, and norms and zero padding
depend on its edges; in a tile they see the tile's.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vtok.config import require


def blended_tiles(x: Tensor, tile: int, overlap: int, scale: float, operation: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies an operation to square tiles of a video and joins the results.

    Args:
        x: The video or latents, (B, T, H, W, C).
        tile: Side of a tile, in pixels of ``x``.
        overlap: Overlap of neighbouring tiles, in pixels of ``x``. The last tile of a row or column overlaps more, so
            that all tiles have the same size.
        scale: Pixels of the result per pixel of ``x``.
        operation: Maps a tile (B, T, h, w, C) to (B, T', h scale, w scale, C').

    Raises:
        ConfigError: The overlap is negative or not smaller than the tile.
    """
    rows, columns = (tile_starts(side, tile, overlap) for side in x.shape[2:4])
    total: Tensor | None = None
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
    assert total is not None  # there is always a tile
    return total / weights


def tile_starts(side: int, tile: int, overlap: int) -> list[int]:
    """Returns the first pixel of each tile along a side of ``side`` pixels.

    Raises:
        ConfigError: The overlap is negative or not smaller than the tile.
    """
    require(0 <= overlap < tile, f"the overlap of tiles must be less than their side of {tile}, not {overlap}")
    last = max(side - tile, 0)
    return [*range(0, last, tile - overlap), last]


def ramp(side: int, overlap: int, like: Tensor) -> Tensor:
    """Returns weights (side,) that rise over the overlap, stay at one, and fall over the overlap.

    Args:
        side: Pixels.
        overlap: Pixels.
        like: Gives dtype and device.
    """
    distance = torch.arange(side, device=like.device) + 0.5
    return (torch.minimum(distance, side - distance) / max(overlap, 1)).clamp(max=1).to(like.dtype)
