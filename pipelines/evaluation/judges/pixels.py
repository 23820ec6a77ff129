"""``pixels``: the judge of the shapes world. It recognises objects and their motion from the pixels alone."""

import numpy as np

from data_tools.items import Item
from data_tools.shapes import CATEGORIES
from data_tools.shapes.judge import answer

JUDGED_WIDTH = 64  # pixels; wider frames are averaged down to about this


class PixelJudge:
    """Answers the questions of :mod:`data_tools.shapes`, and no others."""

    settings: dict = {"judge": "pixels"}

    def refusal(self, item: Item) -> str | None:
        """Returns why the judge cannot answer an item, or ``None`` if it can."""
        known = CATEGORIES[item.category].answers.values() if item.category in CATEGORIES else ()
        if set(item.options) <= set(known):
            return None
        return f"{item.id} is not about the shapes world, and this judge knows no other: try --judge qwen2.5-vl"

    def answer(self, frames: np.ndarray, times: list[float], item: Item) -> str | None:
        """Answers an item's question; see :meth:`Judge.answer`. The times are not used."""
        return answer(averaged_down(frames), item)


def averaged_down(frames: np.ndarray) -> np.ndarray:
    """Averages frames (F, H, W, 3) ``uint8`` down by a whole factor, so that they are less than 128 pixels wide."""
    n = max(1, frames.shape[2] // JUDGED_WIDTH)
    count, height, width = len(frames), frames.shape[1] // n, frames.shape[2] // n
    blocks = frames[:, : height * n, : width * n].reshape(count, height, n, width, n, 3)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8)
