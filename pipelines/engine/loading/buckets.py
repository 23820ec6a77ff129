"""The buckets of a run: chosen or read, checked, and with the predicted cost of a sample in each."""

import numpy as np

from data_tools.buckets import Bucket, Bucketing, choose_buckets, read_bucket
from data_tools.errors import DataError
from data_tools.shards import ShardReader
from data_tools.streaming.mixture import Mixture
from data_tools.video.views import Shape
from pipelines.config import RunConfig
from pipelines.metering.buckets import predicted_costs
from pipelines.views import shapes_of, views_of
from vtok.config import ConfigError, require
from vtok.framework import VTokFramework


def settle_buckets(
    config: RunConfig, reader: ShardReader | Mixture, framework: VTokFramework, earlier: list[str] | None = None
) -> None:
    """Replaces ``data.buckets: auto`` by the buckets that it stands for, the same on every rank. Checks those given.

    Args:
        config: The run's configuration.
        reader: The run's data.
        framework: The run's framework.
        earlier: The buckets that ``auto`` stood for when the run began, if it goes on: data that have grown since then
            keep them.

    Raises:
        ConfigError: A bucket is written wrong, or the decoder cannot take its size.
        DataError: The manifest does not know the sizes of frames.
    """
    if not config.data.buckets:
        return
    if config.data.buckets == "auto":
        assert framework.decoder is not None  # the configuration has checked it
        own = earlier or [
            bucket.written(config.model.decoder.fps) for bucket in chosen(config, reader, framework.decoder.token_side)
        ]
        config.data.buckets = own
    buckets_of(config, framework)


def chosen(config: RunConfig, reader: ShardReader | Mixture, side: int) -> list[Bucket]:
    """Returns the buckets that ``auto`` stands for. ``side`` is that of a latent token, in pixels."""
    data, decoder = config.data, config.model.decoder
    _, view = views_of(config, 1)
    assert view is not None  # a model without a decoder has no buckets
    largest = Bucket(view.height, view.width, view.num_frames)
    facts = reader.facts(np.arange(len(reader)))
    return choose_buckets(facts, largest, data.seconds, decoder.fps, data.fit, side, data.bucket_tokens)


def buckets_of(config: RunConfig, framework: VTokFramework) -> list[Bucket]:
    """Returns the buckets that the settings list; raises ConfigError as :func:`settle_buckets`."""
    assert isinstance(config.data.buckets, list) and framework.decoder is not None
    side, fps = framework.decoder.token_side, config.model.decoder.fps
    try:
        buckets = [read_bucket(text, fps) for text in config.data.buckets]
    except DataError as error:
        raise ConfigError(f"data.buckets: {error}") from error
    for bucket, text in zip(buckets, config.data.buckets):
        require(
            bucket.height % side == 0 and bucket.width % side == 0,
            f"data.buckets: the decoder takes heights and widths that are multiples of {side}, not {text}",
        )
        require(
            bucket.seconds(fps) <= config.data.seconds,
            f"data.buckets: {text} is longer than data.seconds {config.data.seconds:g}",
        )
    return buckets


def build_bucketing(
    config: RunConfig, reader: ShardReader | Mixture, framework: VTokFramework, costs: bool
) -> tuple[Bucketing | None, list[Shape]]:
    """Builds what sorts samples into buckets, and the views of each bucket. Without buckets: ``None``, no views.

    Args:
        config: The run's configuration, with its buckets settled.
        reader: The samples.
        framework: The run's framework.
        costs: Whether to predict the cost of a sample, which only the order of training needs.
    """
    data = config.data
    if not data.buckets:
        return None, []
    buckets = buckets_of(config, framework)
    shapes = shapes_of(config, framework.tokeniser.feature_extractor.image_size, buckets)
    predicted, token = [0.0] * len(shapes), 0.0
    if costs:
        predicted, token = predicted_costs(config, framework, shapes, framework.text)
    fps = config.model.decoder.fps
    return Bucketing(reader, buckets, data.seconds, fps, data.fit, np.array(predicted), token), shapes
