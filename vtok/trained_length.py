"""Warns where a video is longer than those that the model was trained with.

The rows of P's table of steps in time start at zero, and training moves only those that its videos reach. So a row that
is zero behind the last one that is not was never trained.
"""

import warnings
from collections.abc import Iterable

from vtok.framework import VTokFramework


def trained_steps(framework: VTokFramework) -> int:
    """Returns the number of steps in time that training reached; 0 if P is untrained, or sharded among ranks."""
    rows = framework.projection.positions.temporal.weight.detach()
    if rows.ndim < 2:  # under ZeRO-3 a rank has a slice of it
        return 0
    moved = rows.any(1).nonzero()
    return int(moved.max()) + 1 if moved.numel() else 0


def warn_if_longer(framework: VTokFramework, indices: Iterable[int], advice: str) -> None:
    """Warns if a video's visual tokens use rows of P that were never trained.

    Args:
        framework: The model.
        indices: Indices of the visual tokens of a video, or of a part with a key frame of its own.
        advice: What to do; ``{seconds:g}`` becomes the trained length.
    """
    places = map(framework.tokeniser.place, indices)
    steps = 1 + max((place.time for place in places if place.time is not None), default=-1)
    trained, rate = trained_steps(framework), framework.tokeniser.steps_per_second
    if rate and 0 < trained < steps:
        warnings.warn(
            f"the video has {steps} steps in time, but the model was trained with {trained}, "
            f"{trained / rate:g} s: {advice.format(seconds=trained / rate)}",
            stacklevel=3,
        )
