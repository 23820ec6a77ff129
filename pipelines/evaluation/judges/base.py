"""The interface of a judge."""

from pathlib import Path
from typing import Protocol

import numpy as np

from data_tools.items import Item
from data_tools.video.decode import whole_frames


class Judge(Protocol):
    """Answers multiple-choice questions about videos, or abstains.

    Attributes:
        settings: The settings that its answers depend on, as plain data. They are stored with the answers.
    """

    settings: dict

    def refusal(self, item: Item) -> str | None:
        """Returns why the judge cannot answer an item, or ``None`` if it can."""

    def answer(self, frames: np.ndarray, times: list[float], item: Item) -> str | None:
        """Answers an item's question about a video.

        Args:
            frames: The frames, (F, H, W, 3) ``uint8`` RGB.
            times: The time of each frame in seconds.
            item: The item.

        Returns:
            One of the item's options, or ``None`` if the judge abstains.
        """


def read_frames(path: Path) -> tuple[np.ndarray, list[float]]:
    """Decodes all frames of a video, (F, H, W, 3) ``uint8`` RGB; also returns their times in seconds.

    Raises:
        BadVideo: The video cannot be decoded.
    """
    times, frames = zip(*((time, frame.to_ndarray(format="rgb24")) for time, frame in whole_frames(path)))
    return np.stack(frames), list(times)
