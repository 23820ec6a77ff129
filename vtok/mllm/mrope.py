"""mRoPE: a token's position is its time, row and column (Wang et al., 2024, Qwen2-VL, section 2.1).

Text counts on in all three at once. A video's tokens stand at their time and cell, counted from where the video begins,
and what follows goes on behind the largest of all their numbers, as it did when the model was released. (Transformers
5.23 goes on behind rows and columns alone, which is the same unless a video has more time than columns and rows; what
it generates goes on behind the largest again.)
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from vtok.tokeniser.base import Place


def video_positions(places: list[Place], frames: list[int], grid: int, positions_per_frame: Tensor) -> Tensor:
    """Positions (3, L) of a video's L tokens, from 0 on.

    Args:
        places: the tokens'. One without a time stands at the first frame, one without a cell is a grid of one cell.
        frames: that each step in time looks at.
        grid: columns of the grid.
        positions_per_frame: () fp32. Times are rounded down, as in transformers: where steps are less than a position
            apart, neighbours share one.
    """
    seen = torch.tensor([0 if place.time is None else frames[place.time] for place in places])
    cells = torch.tensor([place.cell or 0 for place in places], dtype=torch.long)
    return torch.stack([(seen * positions_per_frame).long(), cells // grid, cells % grid])


def row_positions(before: int, videos: Iterable[Tensor], after: int) -> Tensor:
    """Positions (3, L) of a row: text, videos one behind another, text.

    Args:
        before, after: tokens of text.
        videos: (3, n) each, from :func:`video_positions`.
    """
    pieces, start = [text_positions(before)], before
    for video in videos:
        pieces.append(video + start)
        if video.numel():  # a strategy may have no token
            start = int(pieces[-1].max()) + 1
    return torch.cat([*pieces, text_positions(after) + start], dim=1)


def text_positions(count: int) -> Tensor:
    return torch.arange(count).expand(3, -1)
