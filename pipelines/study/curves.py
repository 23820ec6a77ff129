"""Learning curves: a run's log in few points, the mean over seeds, and how far arms came in equal steps and time."""

from itertools import accumulate
from typing import Any

from pipelines.study.seeds import mean

LOSSES = {"loss_under": "L_under", "loss_vis_lm": "L_visLM", "loss_dec": "L_dec"}
POINTS = 100

# Points: up to which step and second of training, and each loss's mean since the point before; ``None`` where the loss
# was part of no step between (see ``dec_every``).
Curve = list[dict[str, float | None]]


def curve_of(log: list[dict[str, Any]], batch: int) -> Curve:
    """Of a run's log, a line a step; ``batch`` is the clips of a step."""
    points = min(POINTS, len(log))
    ends = [len(log) * (point + 1) // points for point in range(points)]
    seconds = list(accumulate(batch / line["samples_per_s"] for line in log))
    return [
        {"step": end, "seconds": seconds[end - 1]} | {loss: known_mean(log[start:end], loss) for loss in LOSSES}
        for start, end in zip([0, *ends], ends)
    ]


def mean_curve(curves: list[Curve]) -> Curve:
    """Over the seeds of an arm, point by point."""
    return [{name: known_mean(list(points), name) for name in points[0]} for points in zip(*curves)]


def known_mean(points: list[dict[str, Any]], name: str) -> float | None:
    values = [point[name] for point in points if point[name] is not None]
    return mean(values) if values else None


def known(curve: Curve, loss: str) -> list[tuple[float, float, float]]:
    """(step, second, loss) of the points that have one."""
    return [(point["step"], point["seconds"], point[loss]) for point in curve if point[loss] is not None]


def loss_table(curves: dict[str, Curve]) -> str:
    """Losses after equally many steps, and after the time that the quickest arm took for them."""
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
    values = [point[loss] for point in curve if point[along] <= limit and point[loss] is not None]
    return f"{values[-1]:.3f}" if values else "–"
