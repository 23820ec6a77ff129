"""Learning curves: a run's log in few points, their mean over seeds, and losses of arms at equal steps or seconds."""

from itertools import accumulate
from typing import Any

from pipelines.shapes_study.seeds import mean

LOSSES = {"loss_under": "L_under", "loss_vis_lm": "L_visLM", "loss_dec": "L_dec"}
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


def mean_curve(curves: list[Curve]) -> Curve:
    """Returns the mean of the curves of an arm's seeds, point by point."""
    return [{name: known_mean(list(points), name) for name in points[0]} for points in zip(*curves)]


def known_mean(points: list[dict[str, Any]], name: str) -> float | None:
    """Returns the mean of a value over the points that have it, or None."""
    values = [point[name] for point in points if point[name] is not None]
    return mean(values) if values else None


def known(curve: Curve, loss: str) -> list[tuple[float, float, float]]:
    """Returns (step, second, loss) of each point that has this loss."""
    return [(point["step"], point["seconds"], point[loss]) for point in curve if point[loss] is not None]


def loss_table(curves: dict[str, Curve]) -> str:
    """Returns a Markdown table of each arm's losses, after equal steps and after equal seconds.

    The number of steps is the smallest that all arms reached, and the seconds are those of the quickest arm.
    """
    steps, seconds = (min(curve[-1][name] for curve in curves.values()) for name in ("step", "seconds"))
    lines = [
        f"Losses after {steps:.0f} steps / after {seconds:.0f} s of training, which is what the quickest arm took:\n",
        f"| arm | s per step | {' | '.join(LOSSES.values())} |",
        "|---|---|" + "---|" * len(LOSSES),
    ]
    for arm, curve in curves.items():
        cells = [
            f"{last_loss(curve, loss, 'step', steps)} / {last_loss(curve, loss, 'seconds', seconds)}" for loss in LOSSES
        ]
        lines.append(f"| {arm} | {curve[-1]['seconds'] / curve[-1]['step']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def last_loss(curve: Curve, loss: str, along: str, limit: float) -> str:
    """Returns the last known loss up to a step or second (``along``), as text."""
    values = [point[loss] for point in curve if point[along] <= limit and point[loss] is not None]
    return f"{values[-1]:.3f}" if values else "–"
