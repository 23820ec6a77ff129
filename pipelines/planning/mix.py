"""What the samples of a dataset cost: their buckets, or without buckets their own lengths."""

from dataclasses import dataclass

import numpy as np

from data_tools.buckets import Bucket
from data_tools.buckets.nearest import distances, has_video, latent_frames_of
from data_tools.shards import ShardReader
from data_tools.streaming.mixture import Mixture
from data_tools.video.views import VAE_STRIDE
from pipelines.config import RunConfig
from pipelines.engine.loading.buckets import buckets_of, settle_buckets
from pipelines.metering.buckets import all_flops, bucket_steps, without_video
from pipelines.metering.step import Step, meta_copy
from pipelines.planning.forecast import Scenario
from pipelines.planning.time import micro_step_seconds
from pipelines.views import shapes_of, views_of
from vtok.framework import VTokFramework

WITHOUT_VIDEO = "without a video"
LENGTHS = 8  # different lengths that are measured of a dataset without buckets


@dataclass(frozen=True)
class Kind:
    """Samples of one cost.

    Attributes:
        name: Of the bucket, or of the length.
        samples: Their number.
        tokens: Latent tokens of each.
        flops: FLOPs that each takes.
        seconds: Seconds of a micro-step with one of them.
    """

    name: str
    samples: int
    tokens: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class Mix:
    """The samples of a dataset.

    Attributes:
        samples: Their number.
        kinds: The kinds of them.
        whole: A clip that fills a window at the size of L_dec, as plans without a dataset assume.
        over: Names of the buckets with more tokens than it.
    """

    samples: int
    kinds: list[Kind]
    whole: Kind

    @property
    def seconds(self) -> float:
        """Mean seconds of a micro-step with one sample."""
        return sum(kind.samples * kind.seconds for kind in self.kinds) / self.samples

    @property
    def flops(self) -> float:
        """Mean FLOPs of a sample."""
        return sum(kind.samples * kind.flops for kind in self.kinds) / self.samples

    @property
    def over(self) -> list[str]:
        return [kind.name for kind in self.kinds if kind.tokens > self.whole.tokens]


def mix_of(scenario: Scenario, reader: ShardReader | Mixture) -> Mix:
    """Measures one sample of each kind on the meta device.

    Args:
        scenario: The run. Its buckets are settled here.
        reader: Its data. A mixture counts by its numbers of samples, without weights.

    Raises:
        ConfigError: The buckets are wrong.
        DataError: The manifest does not know the sizes of frames.
    """
    config, facts = scenario.config, reader.facts(np.arange(len(reader)))
    framework = meta_copy(config.model, config.train.precision, config.train.parts)
    fps, side = config.model.decoder.fps, framework.decoder.token_side if framework.decoder else 1
    image_size = framework.tokeniser.feature_extractor.image_size
    _, view = views_of(config, image_size)
    assert view is not None
    whole = Bucket(view.height, view.width, view.num_frames)
    buckets, of_samples = kinds_of(config, facts, whole, framework, reader)
    *shapes, other = shapes_of(config, image_size, buckets)
    (full,) = shapes_of(config, image_size, [whole])[:1]
    views, shared_by = [*shapes, without_video(other), full], config.train.sequence_parallel
    steps = whole_steps = bucket_steps(config, framework, views, scenario.caption_tokens)
    if shared_by > 1:
        steps = bucket_steps(config, framework, views, scenario.caption_tokens, sequence_parallel=shared_by)
    counts = np.bincount(of_samples, minlength=len(buckets) + 1).tolist()
    every = config.model.loss.dec_every

    def kind(name: str, samples: int, tokens: int, step: Step, whole_step: Step) -> Kind:
        seconds = sum(phase.total for phase in micro_step_seconds(step, scenario.rates, every).values())
        return Kind(name, samples, tokens, all_flops(whole_step, every), seconds)

    named = [*((bucket.written(fps), bucket.tokens(side)) for bucket in buckets), (WITHOUT_VIDEO, 0)]
    measured = zip(named, counts, steps, whole_steps)
    kinds = [kind(name, count, tokens, *both) for (name, tokens), count, *both in measured if count]
    return Mix(len(reader), kinds, kind(whole.written(fps), 0, whole.tokens(side), steps[-1], whole_steps[-1]))


def kinds_of(
    config: RunConfig, facts: np.ndarray, whole: Bucket, framework: VTokFramework, reader: ShardReader | Mixture
) -> tuple[list[Bucket], np.ndarray]:
    """Returns the buckets of a run, and the number of each sample's, int64 (N,); the last of those without a video.

    Without buckets each clip is computed at its own length: lengths are rounded up to one of ``LENGTHS``.
    """
    data, fps = config.data, config.model.decoder.fps
    if data.buckets:
        settle_buckets(config, reader, framework)
        buckets = buckets_of(config, framework)
        return buckets, distances(facts, buckets, data.seconds, fps, data.fit).argmin(axis=1)
    drawn = has_video(facts)
    own = latent_frames_of(facts["duration"], data.seconds, fps).clip(max=whole.latent_frames)
    lengths = np.unique(np.quantile(own[drawn], np.linspace(0, 1, LENGTHS), method="higher")) if drawn.any() else []
    buckets = [Bucket(whole.height, whole.width, VAE_STRIDE * (int(length) - 1) + 1) for length in lengths]
    return buckets, np.where(drawn, np.searchsorted(lengths, own), len(buckets))
