"""What an evaluation asks of a judge."""

from pathlib import Path
from typing import Protocol

import numpy as np

from data_tools.items import Item
from data_tools.video import whole_frames


class Judge(Protocol):
    """Answers multiple-choice questions about videos, or abstains.

    Attributes:
        settings: what its answers depend on; kept with them.
    """

    settings: dict

    def refusal(self, item: Item) -> str | None:
        """Why it cannot judge the item, if it cannot."""

    def answer(self, frames: np.ndarray, times: list[float], item: Item) -> str | None:
        """One of the item's options, or ``None``.

        Args:
            frames: (F, H, W, 3) ``uint8`` RGB.
            times: seconds at which each is shown.
        """


def read_frames(path: Path) -> tuple[np.ndarray, list[float]]:
    """All frames of a video, (F, H, W, 3) ``uint8`` RGB, and their times in seconds.

    Raises:
        BadVideo: it cannot be decoded.
    """
    times, frames = zip(*((time, frame.to_ndarray(format="rgb24")) for time, frame in whole_frames(path)))
    return np.stack(frames), list(times)
