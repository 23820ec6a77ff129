"""LLaVA-Next's own visual row for an image: the whole picture and its tiles (Liu et al., 2024).

The tests compare our parts with the published model on it.
"""

import torch
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution


def tile_grid(image_size: tuple[int, int], pinpoints: list[list[int]], tile_size: int) -> tuple[int, int]:
    """Returns the rows and columns of tiles that LLaVA-Next cuts an image (height, width) into."""
    height, width = select_best_resolution(image_size, pinpoints)
    return height // tile_size, width // tile_size


def anyres_embeddings(
    embeddings: Tensor, image_size: tuple[int, int], tiles: tuple[int, int], newline: Tensor
) -> Tensor:
    """Returns the visual part of LLaVA-Next's row for one image.

    Args:
        embeddings: (1 + rows * columns, g, g, d), phi_vis of the whole picture, then of its tiles row by row.
        image_size: Height and width of the picture before scaling and padding.
        tiles: Rows and columns, from :func:`tile_grid`.
        newline: (d,), LLaVA's ``image_newline``. It ends each row of the joined grid of the tiles.

    Returns:
        (L, d), the grid of the whole picture, then the joined grid of the tiles without padding.
    """
    whole, grid = embeddings[0].flatten(0, 1), embeddings.shape[1]
    joined = embeddings[1:].unflatten(0, tiles).permute(0, 2, 1, 3, 4).reshape(tiles[0] * grid, tiles[1] * grid, -1)
    joined = without_padding(joined, image_size)
    lines = torch.cat([joined, newline.expand(len(joined), 1, -1)], dim=1)
    return torch.cat([whole, lines.flatten(0, 1)])


def without_padding(grid: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Cuts the padding off a grid (rows, columns, d). The two bars of padding are equally wide."""
    (rows, columns, _), (height, width) = grid.shape, image_size
    if width * rows > height * columns:  # wider than the grid: bars above and below
        bar = (rows - int(round(height * columns / width, 7))) // 2
        return grid[bar : rows - bar]
    bar = (columns - int(round(width * rows / height, 7))) // 2
    return grid[:, bar : columns - bar]
