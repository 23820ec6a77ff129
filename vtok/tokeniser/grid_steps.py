"""The layout of codecs that see several frames at once: S tokens of the first frame, then a grid of them for each step.

A step is a fixed number of frames. One key frame serves the whole video, as in ``vtok``.
"""

from vtok.config import require
from vtok.tokeniser.base import Place, TokenCounts
from vtok.tokeniser.vtok import VTokTokeniser


class GridStepsTokeniser(VTokTokeniser):
    """Turns frames into S + M tokens, M of which are the cells of steps.

    Attributes:
        cells_per_step: Tokens of a step.
        frames_per_step: Frames of a step, at ``config.fps`` per second.
    """

    cells_per_step: int
    frames_per_step: int

    @property
    def num_cells(self) -> int:
        return self.config.num_spatial_tokens + self.cells_per_step

    @property
    def steps_per_second(self) -> float:
        return self.config.fps / self.frames_per_step

    def counts(self, num_frames: int, fps: float | None = None) -> TokenCounts:
        steps = len(self.time_frames(num_frames, fps))
        return TokenCounts(self.config.num_spatial_tokens, steps * self.cells_per_step)

    def place(self, index: int) -> Place:
        split = self.config.num_spatial_tokens
        if index < split:
            return Place("spatial", cell=index)
        time, cell = divmod(index - split, self.cells_per_step)
        return Place("motion", cell=split + cell, time=time)

    def time_frames(self, num_frames: int, fps: float | None = None, key_frame_idx: int | None = None) -> list[int]:
        """Returns the last frame of each step in time."""
        self.require_first_frame(key_frame_idx)
        own, step = self.own_frames(num_frames, fps), self.frames_per_step
        return [own[min(first + step - 1, len(own) - 1)] for first in range(1, len(own), step)]

    def require_first_frame(self, key_frame_idx: int | str | None) -> None:
        """Raises ConfigError if another frame is to be the key frame."""
        require(
            key_frame_idx in (None, 0),
            f"tokeniser.strategy {self.config.strategy} takes the first frame as key frame, not {key_frame_idx}",
        )

    def own_frames(self, num_frames: int, fps: float | None = None) -> list[int]:
        """Returns the frames that are read: ``config.fps`` per second of those given.

        Raises:
            ConfigError: The video has fewer.
        """
        rate, fps = self.config.fps, fps or self.config.fps
        require(num_frames >= 1, f"a video needs at least one frame, got {num_frames}")
        require(rate <= fps, f"tokeniser.strategy {self.config.strategy} needs {rate:g} frames per second, got {fps:g}")
        count = int((num_frames - 1) * rate / fps + 1e-9) + 1
        return [min(round(index * fps / rate), num_frames - 1) for index in range(count)]
