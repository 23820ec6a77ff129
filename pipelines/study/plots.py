"""The report's pictures: learning curves and rows of frames."""

from pathlib import Path

import av
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from PIL import Image  # noqa: E402

from pipelines.study.curves import LOSSES, Curve, known  # noqa: E402

SHOWN = 3


def plot_curves(curves: dict[str, Curve], path: Path) -> None:
    """Losses of each arm over steps and over seconds of training: longer sequences make dearer steps."""
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
    """The first videos of each folder, a row a video; returns what the rows are, or nothing without videos."""
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
    """That are shown of a folder."""
    return sorted(folder.glob("*.mp4"))[:SHOWN]


def strip(video: Path) -> Image.Image:
    with av.open(str(video)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    picture = Image.new("RGB", (sum(frame.width for frame in frames), frames[0].height))
    for number, frame in enumerate(frames):
        picture.paste(frame, (number * frame.width, 0))
    return picture
