"""Draws the tokens of a video: the key frame with its grid, and the norm of each motion token's residual."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from data_tools.video.media import as_image

SIDE, MARGIN = 336, 40
INK, LIGHT = (30, 30, 30), (190, 190, 190)


def token_picture(
    key_frame: Tensor,
    grid: int,
    times: Sequence[float],
    norms: Sequence[float],
    title: str,
    cuts: Sequence[float] = (),
) -> Image:
    """Draws the key frame on the left and a plot of the residuals' norms over time on the right.

    Args:
        key_frame: The key frame, (3, H, W) ``uint8``.
        grid: Spatial tokens along a side.
        times: Time of each motion token in seconds from the start of the clip.
        norms: Norm of the residual of each motion token.
        title: Title of the plot.
        cuts: Times of further key frames. Each is a vertical line.
    """
    picture = Image.new("RGB", (SIDE * 3, SIDE), "white")
    picture.paste(with_grid(key_frame, grid))
    draw = ImageDraw.Draw(picture)
    left, right, top, bottom = SIDE + MARGIN, SIDE * 3 - MARGIN, MARGIN, SIDE - MARGIN
    draw.text((left, MARGIN // 4), title, INK)
    draw.line([(left, top), (left, bottom), (right, bottom)], INK)
    if len(norms):
        first, last, highest = min(0.0, *times), max(times), max(*norms, 1e-9)

        def across(time: float) -> float:
            return left + (right - left) * (time - first) / max(last - first, 1e-9)

        points = [(across(time), bottom - (bottom - top) * norm / highest) for time, norm in zip(times, norms)]
        for time in cuts:
            draw.line([(across(time), top), (across(time), bottom)], LIGHT, 3)
        draw.line(points, LIGHT)
        for x, y in points:
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=INK)
        draw.text((right - MARGIN, bottom + MARGIN // 4), f"{last:.2f} s", INK)
        draw.text((SIDE + 4, top), f"{highest:.2g}", INK)
    return picture


def with_grid(frame: Tensor, grid: int) -> Image:
    """Draws a (3, H, W) ``uint8`` frame with lines between its ``grid`` x ``grid`` cells."""
    picture = as_image(frame).resize((SIDE, SIDE), Image.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for cut in torch.linspace(0, SIDE, grid + 1)[1:-1].tolist():
        draw.line([(cut, 0), (cut, SIDE)], "white")
        draw.line([(0, cut), (SIDE, cut)], "white")
    return picture


def stacked(pictures: list[Image.Image]) -> Image:
    """Returns pictures of the same width, stacked from top to bottom."""
    sheet = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)))
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet
