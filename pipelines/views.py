"""Derives the views of a clip, which are what the model sees, from a run's configuration."""

from data_tools.video.views import View, decoder_view, tokeniser_view
from pipelines.config import RunConfig


def views_of(config: RunConfig, image_size: int) -> tuple[View, View | None]:
    """Returns the tokeniser's view of a window and the decoder's, or None for a model without a decoder.

    Args:
        config: Configuration of the run.
        image_size: Image size of the backbone, in pixels.
    """
    seconds, decoder = config.data.seconds, config.model.decoder
    tokeniser = tokeniser_view(seconds, config.model.tokeniser.fps, image_size, image_size)
    if not config.model.generates:
        return tokeniser, None
    return tokeniser, decoder_view(seconds, decoder.fps, *decoder.loss_size, decoder.loss_latent_frames)
