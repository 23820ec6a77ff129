"""Derives the views of a clip, which are what the model sees, from a run's configuration."""

from collections.abc import Sequence

from data_tools.buckets import Bucket
from data_tools.video.views import SMALLEST, VAE_STRIDE, Shape, View, decoder_view, tokeniser_view
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


def shapes_of(config: RunConfig, image_size: int, buckets: Sequence[Bucket]) -> list[Shape]:
    """Returns the views of the buckets, whose windows are as long as their videos; last those of the other samples.

    Args:
        config: Configuration of the run.
        image_size: Image size of the backbone, in pixels.
        buckets: The buckets.
    """
    fps, shapes = config.model.decoder.fps, []
    for bucket in buckets:
        seconds = bucket.seconds(fps)
        tokeniser = tokeniser_view(seconds, config.model.tokeniser.fps, image_size, image_size)
        video = View(fps, bucket.frames, bucket.height, bucket.width, VAE_STRIDE)
        shapes.append(Shape(seconds, tokeniser, video, video))
    whole, _ = views_of(config, image_size)
    black = View(fps, 1, SMALLEST, SMALLEST, VAE_STRIDE)
    return [*shapes, Shape(config.data.seconds, whole, black, black)]
