"""Draws clips with their captions: frames side by side in a contact sheet, or all clips at once in an animation."""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from data_tools.video.media import as_image

SIDE, MOVING, GAP, LINE = 96, 128, 4, 16  # pixels: of a frame, of a moving one, between frames, of a line of text
COLUMNS, ACROSS = 8, 4  # frames of a clip in the sheet; clips in a row of the animation
TEXT, PAPER = 12, "white"
INK = {"✓": (20, 120, 50), "✗": (180, 40, 40), "": (0, 0, 0)}
WORDS = {"✓": " [right]", "✗": " [wrong]", "": ""}


class Panel(NamedTuple):
    """A clip to draw.

    Attributes:
        frames: Its frames, (F, 3, H, W) ``uint8``.
        text: What to write beside it.
        mark: ``✓`` or ``✗``; empty if nobody judged it.
    """

    frames: Tensor
    text: str
    mark: str


def contact_sheet(panels: list[Panel]) -> Image.Image:
    """Draws each clip as its text, in one or two lines, above a row of its frames."""
    text, width = 2 * LINE, COLUMNS * (SIDE + GAP) + GAP
    row = text + SIDE + 2 * GAP
    sheet = Image.new("RGB", (width, row * len(panels)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    for number, panel in enumerate(panels):
        top = number * row
        said = wrapped(f"{panel.text}{WORDS[panel.mark]}", draw, font, width - 2 * GAP)
        draw.multiline_text((GAP, top + text), said, INK[panel.mark], font, anchor="ld", spacing=2)
        for column, frame in enumerate(spread(panel.frames, COLUMNS)):
            sheet.paste(enlarged(frame, SIDE), (GAP + column * (SIDE + GAP), top + text + GAP))
    return sheet


def animation(panels: list[Panel], fps: float) -> tuple[Tensor, float]:
    """Draws all clips at once, over time.

    Args:
        panels: The clips.
        fps: Frames per second of the result.

    Returns:
        The frames (F, 3, H, W) ``uint8``, as many as the shortest clip has, and their rate.
    """
    count = min(len(panel.frames) for panel in panels)
    moments = [[panel._replace(frames=frame[None]) for panel, frame in zip(panels, at)]
               for at in zip(*(spread(panel.frames, count) for panel in panels))]  # fmt: skip
    pictures = [np.asarray(grid(moment)) for moment in moments]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), fps


def grid(panels: list[Panel]) -> Image.Image:
    """Draws the first frames of clips in rows, each with its text below."""
    side, below = MOVING, 6 * LINE
    rows = -(-len(panels) // ACROSS)
    picture = Image.new("RGB", (ACROSS * (side + GAP) + GAP, rows * (side + below + GAP)), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(TEXT)
    for number, panel in enumerate(panels):
        left, top = GAP + number % ACROSS * (side + GAP), GAP + number // ACROSS * (side + below + GAP)
        picture.paste(enlarged(panel.frames[0], side), (left, top))
        text = wrapped(f"{panel.text}{WORDS[panel.mark]}", draw, font, side)
        draw.multiline_text((left, top + side + 1), text, INK[panel.mark], font, spacing=2)
    return picture


def spread(frames: Tensor, count: int) -> Tensor:
    """Returns ``count`` frames at equal distances, or all if there are fewer."""
    count = min(count, len(frames))
    return frames[torch.linspace(0, len(frames) - 1, count).round().long()]


def enlarged(frame: Tensor, side: int) -> Image.Image:
    """Returns a frame (3, H, W) ``uint8`` as a square picture."""
    return as_image(frame).resize((side, side), Image.Resampling.BICUBIC)


def wrapped(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont, width: int) -> str:
    """Breaks a text into lines that are at most ``width`` pixels wide."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)
