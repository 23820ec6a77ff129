"""Validation of a codec in training, on the centres of held-out clips."""

from torch import Tensor

from data_tools.shards import ShardReader
from data_tools.video.files import VideoFiles
from pipelines.codec_training.config import CodecRunConfig
from pipelines.codec_training.recipes import Recipe, Trainable
from pipelines.engine.watching.examples import Video
from pipelines.vidtok_training.held_out import HeldOutValidation


class Validation(HeldOutValidation):
    """Validates a codec.

    Args:
        config: The run's configuration.
        reader: The held-out videos.
        recipe: The codec.
    """

    def __init__(self, config: CodecRunConfig, reader: ShardReader | VideoFiles, recipe: Recipe):
        super().__init__(config, reader)
        self.recipe = recipe

    def measured(self, model: Trainable, row: int) -> tuple[dict[str, float], Video | None]:  # type: ignore[override]
        """Returns the scores of a video's clip, and no picture."""
        frames, _ = self.clip(row)
        device = next(model.parameters()).device
        value = self.recipe.read(centre(frames, *self.data.sides))[None].to(device)
        return self.recipe.scores(model, value), None


def centre(frames: Tensor, height: int, width: int) -> Tensor:
    """Cuts the centre out of frames (T, 3, H, W)."""
    top, left = (frames.shape[2] - height) // 2, (frames.shape[3] - width) // 2
    return frames[:, :, top : top + height, left : left + width]
