"""An image as LLaVA-Next itself sees it: all S tokens of the whole picture and of each of its tiles (Liu et al., 2024).

For comparison with the tokens of :mod:`vtok.tokeniser`: the rows these make give the logits of the published model.
"""

import torch
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution


def tile_grid(image_size: tuple[int, int], pinpoints: list[list[int]], tile_size: int) -> tuple[int, int]:
    """Rows and columns of tiles that an image (height, width) is cut into, among the sizes the model was trained on."""
    height, width = select_best_resolution(image_size, pinpoints)
    return height // tile_size, width // tile_size


def anyres_embeddings(
    embeddings: Tensor, image_size: tuple[int, int], tiles: tuple[int, int], newline: Tensor
) -> Tensor:
    """The visual part of LLaVA-Next's row for one image.

    Args:
        embeddings: (1 + rows * columns, g, g, d): phi_vis of the whole picture, then of its tiles, row by row.
        image_size: (height, width) of the picture before it was scaled and padded to the tiles.
        tiles: (rows, columns), from :func:`tile_grid`.
        newline: (d,), LLaVA's ``image_newline``, which ends each row of the tiles' common grid.

    Returns:
        (L, d): the whole picture's grid, then the tiles' without their padding.
    """
    whole, grid = embeddings[0].flatten(0, 1), embeddings.shape[1]
    joined = embeddings[1:].unflatten(0, tiles).permute(0, 2, 1, 3, 4).reshape(tiles[0] * grid, tiles[1] * grid, -1)
    joined = without_padding(joined, image_size)
    lines = torch.cat([joined, newline.expand(len(joined), 1, -1)], dim=1)
    return torch.cat([whole, lines.flatten(0, 1)])


def without_padding(grid: Tensor, image_size: tuple[int, int]) -> Tensor:
    """The part of a grid (rows, columns, d) that shows the picture; the bars on two of its sides are equally wide."""
    (rows, columns, _), (height, width) = grid.shape, image_size
    if width * rows > height * columns:  # wider than the grid: bars above and below
        bar = (rows - int(round(height * columns / width, 7))) // 2
        return grid[bar : rows - bar]
    bar = (columns - int(round(width * rows / height, 7))) // 2
    return grid[:, bar : columns - bar]
