"""Validation of a codec in training, on the centres of held-out clips."""

from data_tools.shards import ShardReader
from data_tools.video.files import VideoFiles
from pipelines.codec_training.config import CodecRunConfig
from pipelines.codec_training.recipes import Recipe, Trainable
from pipelines.engine.watching.examples import Video
from pipelines.vidtok_training.held_out import HeldOutValidation
from vtok.crops import cut_centre


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
        value = self.recipe.read(cut_centre(frames, *self.data.sides))[None].to(device)
        return self.recipe.scores(model, value), None
