"""The report's pictures: accuracy over tokens and over training FLOPs, and a GIF for each arm and category."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from pipelines.shapes_study.stages import slug
from pipelines.shapes_study.strategies.config import StrategiesConfig
from pipelines.shapes_study.strategies.making import GENERATION
from pipelines.shapes_study.strategies.results import Results
from pipelines.shapes_study.strategies.series import UNDERSTANDING, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COST, GIFS = "cost.png", "videos"
PROTOCOLS = {UNDERSTANDING: "questions about clips", GENERATION: "generated videos"}
COSTS = {"tokens": "visual tokens of a clip", "flops": "training FLOPs of a run"}
TABLE_COLOURS = {"spatial": "tab:green", "temporal": "tab:orange", "residual": "tab:purple", "codecs": "tab:red"}
SCALES = ("spatial", "temporal")  # tables whose arms differ in a number of tokens: lines join them
MARKERS = "osD^vP"
COLOURS = 64  # of a GIF
MILLISECONDS = 333  # of a frame


class Look(NamedTuple):
    """How the picture shows an arm: the colour is its table's, the marker is its own among those of its colour."""

    colour: str
    marker: str
    size: int


def plot_cost(config: StrategiesConfig, results: Results, path: Path) -> None:
    """Plots each arm's accuracy over its tokens and over its FLOPs: the mean, and lowest and highest seed as a bar.

    Without matplotlib, which a bare GPU machine lacks, nothing is plotted: the report can be written again elsewhere.
    """
    if find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9), layout="constrained")
    axes, looks = figure.subplots(2, 2, sharey="row"), looks_of(config)
    for row, (protocol, title) in enumerate(PROTOCOLS.items()):
        right = {
            arm: [100 * own.mean() for own in seeds.values()]
            for arm in config.arms
            if (seeds := series(results, arm, protocol))
        }
        for column, (cost, label) in enumerate(COSTS.items()):
            plane = axes[row][column]
            costs = {arm: results.arms[arm][cost] for arm in right}
            for table in SCALES:
                plot_scale(plane, [(costs[arm], right[arm]) for arm in right if table in config.arms[arm].table], table)
            for arm in right:
                plot_arm(plane, arm, costs[arm], right[arm], looks[arm])
            plane.set_xlabel(label)
            plane.set_ylabel(f"{title}, % right" if column == 0 else "")
            plane.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=100)


def looks_of(config: StrategiesConfig) -> dict[str, Look]:
    """Returns how each arm looks. The first one, with which tables compare the others, is a black star."""
    first, *others = config.arms
    looks = {first: Look("black", "*", 15)}
    for arm in others:
        tables = [table for table in config.arms[arm].table if table in TABLE_COLOURS]
        colour = TABLE_COLOURS[tables[0]] if tables else "tab:blue"
        same = sum(look.colour == colour for look in looks.values())
        looks[arm] = Look(colour, MARKERS[same % len(MARKERS)], 7)
    return looks


def plot_scale(plane: "Axes", points: Iterable[tuple[float, list[float]]], table: str) -> None:
    """Joins the means of arms that differ in a number of tokens."""
    ordered = sorted((cost, float(np.mean(right))) for cost, right in points)
    plane.plot(*zip(*ordered), color=TABLE_COLOURS[table], linewidth=1, linestyle="--")


def plot_arm(plane: "Axes", arm: str, cost: float, right: list[float], look: Look) -> None:
    """Plots an arm's accuracy with each seed over its cost."""
    mean = float(np.mean(right))
    bar = [[mean - min(right)], [max(right) - mean]]
    plane.errorbar(
        cost, mean, bar, fmt=look.marker, color=look.colour, markersize=look.size, elinewidth=1, alpha=0.8, label=arm
    )


def gif_name(arm: str, category: str) -> str:
    """Returns the name of an arm's GIF of a category."""
    return f"{slug(arm)}-{category}.gif"


def write_gif(path: Path, videos: Iterable[np.ndarray]) -> None:
    """Writes videos (F, H, W, 3) ``uint8`` side by side."""
    beside = np.concatenate([np.pad(video, ((0, 0), (1, 1), (1, 1), (0, 0))) for video in videos], axis=2)
    palette = Image.fromarray(np.concatenate(beside)).quantize(COLOURS)
    first, *others = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in beside]
    first.save(path, save_all=True, append_images=others, duration=MILLISECONDS, loop=0)
