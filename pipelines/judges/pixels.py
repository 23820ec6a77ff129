"""``pixels``: the judge of the shapes world, which estimates what is to be seen from the pixels alone."""

import numpy as np

from data_tools.items import Item
from data_tools.shapes import CATEGORIES
from data_tools.shapes.judge import answer

JUDGED_WIDTH = 64  # pixels: larger pictures are averaged down to about this


class PixelJudge:
    """Sees colours, places and tracks; knows only the questions of :mod:`data_tools.shapes`."""

    settings: dict = {"judge": "pixels"}

    def refusal(self, item: Item) -> str | None:
        known = CATEGORIES[item.category].answers.values() if item.category in CATEGORIES else ()
        if set(item.options) <= set(known):
            return None
        return f"{item.id} is not about the shapes world, which is all that this judge knows: try --judge qwen2.5-vl"

    def answer(self, frames: np.ndarray, times: list[float], item: Item) -> str | None:
        return answer(averaged_down(frames), item)


def averaged_down(frames: np.ndarray) -> np.ndarray:
    """(F, H, W, 3) ``uint8`` to about the width that the judge is made for."""
    n = max(1, frames.shape[2] // JUDGED_WIDTH)
    count, height, width = len(frames), frames.shape[1] // n, frames.shape[2] // n
    blocks = frames[:, : height * n, : width * n].reshape(count, height, n, width, n, 3)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8)
