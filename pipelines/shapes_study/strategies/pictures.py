"""The report's pictures: accuracy over tokens and over training FLOPs, and a GIF for each arm and category."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipelines.shapes_study.stages import slug
from pipelines.shapes_study.strategies.config import MAIN, StrategiesConfig
from pipelines.shapes_study.strategies.making import GENERATION
from pipelines.shapes_study.strategies.results import Results
from pipelines.shapes_study.strategies.series import UNDERSTANDING, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COST, GIFS = "cost.png", "videos"
PROTOCOLS = {UNDERSTANDING: "questions about clips", GENERATION: "generated videos"}
COSTS = {"tokens": "visual tokens of a clip", "flops": "training FLOPs of a run"}
COLOURS = 64  # of a GIF
MILLISECONDS = 333  # of a frame


def plot_cost(config: StrategiesConfig, results: Results, path: Path) -> None:
    """Plots each arm's accuracy over its tokens and over its FLOPs: the mean, and lowest and highest seed as a bar.

    Without matplotlib, which a bare GPU machine lacks, nothing is plotted: the report can be written again elsewhere.
    """
    if find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    for row, (protocol, title) in enumerate(PROTOCOLS.items()):
        for column, (cost, label) in enumerate(COSTS.items()):
            plane = axes[row][column]
            for arm, settings in config.arms.items():
                if seeds := series(results, arm, protocol):
                    main = MAIN in settings.table
                    plot_arm(plane, arm, results.arms[arm][cost], [100 * own.mean() for own in seeds.values()], main)
            plane.margins(x=0.15)
            plane.set_xlabel(label)
            plane.set_ylabel(f"{title}, % right" if column == 0 else "")
            plane.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def plot_arm(plane: "Axes", arm: str, cost: float, right: list[float], main: bool) -> None:
    """Plots an arm's accuracy with each seed over its cost; arms of the main table in colour."""
    mean, colour = float(np.mean(right)), "tab:blue" if main else "grey"
    bar = [[mean - min(right)], [max(right) - mean]]
    plane.errorbar(cost, mean, bar, fmt="o", color=colour, elinewidth=1, zorder=2 + main)
    plane.annotate(arm, (cost, mean), xytext=(5, 4), textcoords="offset points", fontsize=8, color=colour)


def gif_name(arm: str, category: str) -> str:
    """Returns the name of an arm's GIF of a category."""
    return f"{slug(arm)}-{category}.gif"


def write_gif(path: Path, videos: Iterable[np.ndarray]) -> None:
    """Writes videos (F, H, W, 3) ``uint8`` side by side."""
    beside = np.concatenate([np.pad(video, ((0, 0), (1, 1), (1, 1), (0, 0))) for video in videos], axis=2)
    palette = Image.fromarray(np.concatenate(beside)).quantize(COLOURS)
    first, *others = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in beside]
    first.save(path, save_all=True, append_images=others, duration=MILLISECONDS, loop=0)
