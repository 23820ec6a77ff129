"""A learning curve: a run's log in few points."""

from itertools import accumulate
from typing import Any

from pipelines.shapes_study.seeds import mean

LOSSES = ("loss_under", "loss_vis_lm", "loss_dec")
POINTS = 100

# Each point has its last step, the seconds of training until then, and the mean of each loss since the previous point.
# A loss is None if none of these steps computed it (see ``dec_every``).
Curve = list[dict[str, float | None]]


def curve_of(log: list[dict[str, Any]], batch: int) -> Curve:
    """Returns the learning curve of a run, in at most 100 points.

    Args:
        log: The run's log, an entry for each step.
        batch: Clips per step.
    """
    points = min(POINTS, len(log))
    ends = [len(log) * (point + 1) // points for point in range(points)]
    seconds = list(accumulate(batch / line["samples_per_s"] for line in log))
    return [
        {"step": end, "seconds": seconds[end - 1]} | {loss: known_mean(log[start:end], loss) for loss in LOSSES}
        for start, end in zip([0, *ends], ends)
    ]


def known_mean(points: list[dict[str, Any]], name: str) -> float | None:
    """Returns the mean of a value over the points that have it, or None."""
    values = [point[name] for point in points if point[name] is not None]
    return mean(values) if values else None
