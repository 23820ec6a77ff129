"""Answers questions about video files."""

from pathlib import Path

from torch import Tensor

from data_tools.errors import DataError
from data_tools.video.decode import validate
from data_tools.video.views import CENTRE, make_views, tokeniser_view, window
from pipelines.config import RunConfig
from pipelines.engine import distributed
from pipelines.views import views_of
from vtok.framework import VTokFramework
from vtok.tokeniser import VisualFeatures
from vtok.understanding import understand


def duration_of(video: Path) -> float:
    """Seconds of a video file that a user named.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    if not video.is_file():
        raise DataError(f"no such video: {video}")
    return validate(video).duration


class Understanding:
    """Answers questions about video files as the model was trained to see them."""

    def __init__(self, config: RunConfig, framework: VTokFramework):
        self.config = config
        self.framework = framework
        self.views = views_of(config, framework.tokeniser.feature_extractor.image_size)

    def answer(
        self, video: Path, question: str, max_new_tokens: int = 128, key_frame_every: float | None = None
    ) -> str:
        """The answer about a video.

        Args:
            key_frame_every: look at the whole video, with a key frame every so many seconds, instead of at the centred
                window that training would take.

        Raises:
            DataError: the video cannot be read.
        """
        frames = self.frames_of(video, key_frame_every)
        return understand(self.framework, frames, question, max_new_tokens, key_frame_every=key_frame_every)

    def frames_of(self, video: Path, key_frame_every: float | None = None) -> Tensor:
        """What the model sees of a video, (T, 3, h, w) ``uint8``; arguments and errors as in :meth:`answer`."""
        duration = duration_of(video)
        data, (tokeniser, decoder) = self.config.data, self.views
        start = window(duration, data.seconds, CENTRE)
        if key_frame_every:
            tokeniser = tokeniser_view(duration, tokeniser.fps, tokeniser.height, tokeniser.width)
            start = 0.0
        views = make_views(video, duration, tokeniser, decoder, start, data.fit, data.decoder, skip=("video",))
        return views.frames[: views.frames_valid].to(distributed.device())

    def features_of(self, video: Path) -> VisualFeatures:
        """Frozen features of the window that training would take; errors as in :meth:`answer`."""
        return self.framework.tokeniser.features(self.frames_of(video)[None])
