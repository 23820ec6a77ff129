"""The report's pictures: learning curves and rows of frames."""

from collections import defaultdict
from pathlib import Path

import av
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from PIL import Image  # noqa: E402

LOSSES = {"loss_under": "L_under", "loss_vis_lm": "L_visLM", "loss_dec": "L_dec"}


def plot_curves(curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Losses of each arm over steps and over seconds of training: longer sequences make dearer steps.

    Args:
        curves: arm -> ``seconds`` and each of ``LOSSES``, a value a step.
    """
    figure, axes = plt.subplots(2, len(LOSSES), figsize=(4 * len(LOSSES), 6), constrained_layout=True)
    for arm, columns in curves.items():
        steps = range(1, len(columns["seconds"]) + 1)
        for column, (loss, label) in enumerate(LOSSES.items()):
            for row, along in enumerate((steps, columns["seconds"])):
                axes[row][column].plot(along, columns[loss], label=arm, linewidth=1)
                axes[row][column].set_title(label)
                axes[row][column].set_xlabel(("steps", "seconds of training")[row])
    axes[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def contact_sheet(folder: Path, path: Path, rows: int = 3) -> str:
    """The first videos of each evaluation, a row a video; returns what the rows are, or nothing without videos."""
    found = defaultdict(list)
    for video in sorted(folder.glob("*/videos/*.mp4")):
        if len(found[video.parents[1].name]) < rows:
            found[video.parents[1].name].append(video)
    strips = [strip(video) for videos in found.values() for video in videos]
    if not strips:
        return ""
    sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)))
    top = 0
    for each in strips:
        sheet.paste(each, (0, top))
        top += each.height
    sheet.save(path)
    return ", ".join(f"{name} ({', '.join(video.stem for video in videos)})" for name, videos in found.items())


def strip(video: Path) -> Image.Image:
    with av.open(str(video)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    picture = Image.new("RGB", (sum(frame.width for frame in frames), frames[0].height))
    for number, frame in enumerate(frames):
        picture.paste(frame, (number * frame.width, 0))
    return picture
