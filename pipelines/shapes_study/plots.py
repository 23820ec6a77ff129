"""The report's pictures: learning curves, and generated videos as rows of frames."""

from pathlib import Path

import av
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from PIL import Image  # noqa: E402

from pipelines.shapes_study.curves import LOSSES, Curve, known  # noqa: E402

SHOWN = 3  # videos per folder


def plot_curves(curves: dict[str, Curve], path: Path) -> None:
    """Plots the losses of each arm over steps and over seconds; steps on longer sequences take longer."""
    figure, axes = plt.subplots(2, len(LOSSES), figsize=(4 * len(LOSSES), 6), constrained_layout=True)
    for arm, curve in curves.items():
        for column, (loss, label) in enumerate(LOSSES.items()):
            steps, seconds, values = zip(*known(curve, loss)) if known(curve, loss) else ((), (), ())
            for row, along in enumerate((steps, seconds)):
                axes[row][column].plot(along, values, label=arm, linewidth=1)
                axes[row][column].set_title(label)
                axes[row][column].set_xlabel(("steps", "seconds of training")[row])
    axes[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def contact_sheet(folders: list[Path], path: Path) -> str:
    """Writes a picture of the first videos of each folder, one row for each video.

    Returns:
        What the rows are, or an empty text if there are no videos (then nothing is written).
    """
    found = {folder.parent.name: first_videos(folder) for folder in folders}
    strips = [strip(video) for videos in found.values() for video in videos]
    if not strips:
        return ""
    sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)))
    top = 0
    for each in strips:
        sheet.paste(each, (0, top))
        top += each.height
    sheet.save(path)
    return ", ".join(
        f"{name} ({', '.join(video.stem for video in videos)})" for name, videos in found.items() if videos
    )


def first_videos(folder: Path) -> list[Path]:
    """Returns the videos of a folder to show."""
    return sorted(folder.glob("*.mp4"))[:SHOWN]


def strip(video: Path) -> Image.Image:
    """Returns the frames of a video side by side."""
    with av.open(str(video)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    picture = Image.new("RGB", (sum(frame.width for frame in frames), frames[0].height))
    for number, frame in enumerate(frames):
        picture.paste(frame, (number * frame.width, 0))
    return picture
