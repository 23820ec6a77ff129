"""mRoPE: a token's position is its time, row and column (Wang et al., 2024, Qwen2-VL, section 2.1).

Text increases all three together. The tokens of a video have their time and cell, counted from the start of the video.
The text behind it continues after the largest number of the video, as in the released model. transformers 5.23 differs:
it continues after the largest row or column, which is smaller if a video has more time steps than rows and columns;
what it generates continues after the largest number again.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from vtok.tokeniser.base import Place


def video_positions(places: list[Place], frames: list[int], grid: int, positions_per_frame: Tensor) -> Tensor:
    """Returns the positions (3, L) of a video's L tokens, from 0 on.

    Args:
        places: The places of the tokens. A token without a time belongs to the first frame. A token without a cell is a
            grid of one cell.
        frames: The frame of each step in time.
        grid: Columns of the grid.
        positions_per_frame: (), fp32. Times are rounded down, as in transformers. So steps less than a position apart
            can share one.
    """
    seen = torch.tensor([0 if place.time is None else frames[place.time] for place in places])
    cells = torch.tensor([place.cell or 0 for place in places], dtype=torch.long)
    return torch.stack([(seen * positions_per_frame).long(), cells // grid, cells % grid])


def row_positions(parts: Iterable[int | Tensor]) -> Tensor:
    """Returns the positions (3, L) of a row of texts and videos.

    Args:
        parts: In order: the number of tokens of a text, or a video's (3, n) from :func:`video_positions`.
    """
    pieces, start = [], 0
    for part in parts:
        own = part if isinstance(part, Tensor) else text_positions(part)
        pieces.append(own + start)
        if own.numel():  # a strategy may have no tokens
            start = int(pieces[-1].max()) + 1
    return torch.cat(pieces, dim=1)


def text_positions(count: int) -> Tensor:
    """Returns the positions (3, count) of text, from 0 on."""
    return torch.arange(count).expand(3, -1)
