"""TensorBoard as a tracker: files of events in the run's folder, written without its ``SummaryWriter``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import scalar, text

from data_tools.video.media import encode_gif
from pipelines.engine.watching.events import Events
from pipelines.engine.watching.examples import Video
from pipelines.engine.watching.trackers.base import Tracker


class TensorBoard(Tracker):
    """Writes to ``OUTPUT/tensorboard``. After a resume it hides what was written from the first step on."""

    def __init__(self, output: Path, step: int, settings: Mapping[str, Any]):
        self.events = Events(output / "tensorboard", step + 1)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            self.events.add(scalar(tag, value), step)
        self.events.flush()

    def text(self, tag: str, text_: str, step: int) -> None:
        self.events.add(text(tag, text_), step)
        self.events.flush()

    def video(self, tag: str, video: Video, step: int) -> None:
        """Adds a video like ``SummaryWriter.add_video``, which would need moviepy for the GIF."""
        height, width = video.frames.shape[2:]
        gif = encode_gif(video.frames, video.fps)
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        self.events.add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
        self.events.flush()

    def close(self) -> None:
        self.events.close()
