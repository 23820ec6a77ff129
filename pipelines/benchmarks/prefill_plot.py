"""What reading a video takes, over its length, as a picture."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from pipelines.benchmarks.prefill import STRATEGIES, Reading  # noqa: E402

QUANTITIES = {
    "tokens": (1, "tokens of the prompt"),
    "seconds": (1, "CPU seconds"),
    "cache": (1e6, "keys and values, MB"),
}


def plot_prefill(found: dict[int, dict[str, Reading]], path: Path) -> None:
    """A PNG: tokens, time and memory over seconds of video, a line a strategy."""
    figure, axes = plt.subplots(1, len(QUANTITIES), figsize=(12, 3.5), constrained_layout=True)
    for axis, (name, (unit, label)) in zip(axes, QUANTITIES.items()):
        for strategy in STRATEGIES:
            axis.plot(
                list(found), [getattr(one[strategy], name) / unit for one in found.values()], "o-", label=strategy
            )
        axis.set_xlabel("seconds of video")
        axis.set_title(label)
    axes[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
