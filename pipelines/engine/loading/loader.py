"""Turns shards into micro-batches: reads samples, tokenises their text and stacks them.

position --ClipDataset--> Sample --SampleToModel--> Encoded --collate--> Batch        (all in the data workers)
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch

from data_tools.buckets import BucketedOrder, Bucketing
from data_tools.dataset import ClipDataset, Sample
from data_tools.order import Order, RunSampler
from data_tools.shards import ShardReader
from data_tools.streaming.grouping import GroupedOrder, estimated_tokens
from data_tools.streaming.memory import stacked
from data_tools.streaming.mixture import Mixture
from pipelines.config import MixtureConfig, RunConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import BatchPlan
from pipelines.engine.loading import precomputed
from pipelines.engine.loading.buckets import build_bucketing
from pipelines.engine.loading.encoding import Encoded, SampleToModel
from pipelines.engine.loading.prefetch import on_device
from pipelines.engine.loading.workers import PATIENCE, read_ahead
from pipelines.views import views_of
from vtok.framework import VTokFramework
from vtok.rows.batch import Batch
from vtok.tokeniser import VisualFeatures
from vtok.video_decoder import Posterior


class Loaded(NamedTuple):
    """A micro-batch.

    Attributes:
        batch: The micro-batch itself.
        replaced: The samples that were replaced in it: (position, bad key, reason) each.
        cut: Samples of it with a text that was too long and was cut.
    """

    batch: Batch
    replaced: list[tuple[int, str, str]]
    cut: int = 0

    def to(self, device: torch.device) -> "Loaded":
        return self._replace(batch=self.batch.to(device))


def collate(items: list[Encoded], alike: bool = False) -> Loaded:
    """Makes a micro-batch of samples.

    Args:
        items: The samples.
        alike: Whether all samples of the run have one shape. The decoder then takes the micro-batch at once, else clip
            by clip, and its transformer without padding. This must not depend on the samples at hand: under ZeRO-3 all
            ranks have to run the decoder equally often.
    """
    samples = [item.sample for item in items]
    batch = Batch(
        frames=frames_of(samples),
        frame_counts=[count for s in samples for count in s.frame_counts],
        video=videos_of(samples, alike),
        video_counts=[s.video_valid for s in samples],
        texts=[item.text for item in items],
        decoder_seeds=[s.draws.seed("decoder") for s in samples],
        head_seeds=[s.draws.seed("visual_head") for s in samples],
        keys=[s.key for s in samples],
        captions=[item.caption for item in items] if items[0].caption is not None else None,
        vectors=padded([vectors for item in items for vectors in item.vectors]),
        media_counts=[len(s.frame_counts) for s in samples],
    )
    replaced = [(s.position, key, reason) for s in samples for key, reason in s.replaced]
    return Loaded(batch, replaced, sum(item.text.cut for item in items))


def padded(vectors: list[torch.Tensor]) -> torch.Tensor | None:
    """Stacks the motion vectors of all media. Zeros follow those of shorter ones. ``None`` if there are none."""
    return torch.nn.utils.rnn.pad_sequence(vectors, batch_first=True) if vectors else None


def collate_of(dataset: ClipDataset) -> Callable[[list[Encoded]], Loaded]:
    """Returns the function that makes micro-batches of a dataset's samples."""
    return partial(collate, alike=dataset.alike)


def frames_of(samples: list[Sample]) -> torch.Tensor | VisualFeatures:
    """Returns the tokeniser's view of a micro-batch's media, or the stored features that replace it.

    Shorter clips repeat their last frame. The tokeniser does not encode these frames.
    """
    frames = [own for sample in samples for own in (sample.frames, *sample.others) if own is not None]
    if not frames:
        return precomputed.unpack_features([s.extras[precomputed.FEATURES] for s in samples])
    longest = max(map(len, frames))
    indices = [torch.arange(longest).clamp_max(len(own) - 1) for own in frames]
    return stacked([own if len(own) == longest else own[index] for own, index in zip(frames, indices)])


def videos_of(samples: list[Sample], alike: bool) -> torch.Tensor | Posterior | list[torch.Tensor | Posterior] | None:
    """Returns the decoder's view of a micro-batch, or the stored latents that replace it; ``None`` without decoder.

    Args:
        samples: The micro-batch.
        alike: As in :func:`collate`.
    """
    if not samples[0].video_valid:
        return None
    groups = [samples] if alike else [[sample] for sample in samples]
    if samples[0].video is None:
        found = [precomputed.unpack_posteriors([s.extras[precomputed.LATENTS] for s in group]) for group in groups]
    else:
        found = [stacked([s.video for s in group]) for group in groups]
    return found[0] if alike else found


def build_order(config: RunConfig, reader: ShardReader | Mixture, bucketing: Bucketing | None = None) -> Order:
    """Returns the run's order of samples, by bucket and cost or by length if asked for."""
    order, window, batch = reader.order(config.seed), config.arranged_samples, config.train.global_batch_size
    if not window:
        return order
    if bucketing is not None:
        return BucketedOrder(order, bucketing, window, batch, config.train.micro_batch_size, config.seed)
    lengths = partial(estimated_tokens, reader, config.data.seconds, config.model.tokeniser.motion_rate)
    return GroupedOrder(order, lengths, window, batch, config.seed)


def order_settings(config: RunConfig, bucketing: Bucketing | None = None) -> str:
    """Returns the settings that the order of samples depends on, beside the seed and the data.

    Args:
        config: The run's configuration.
        bucketing: Its buckets, if it has any.
    """
    if bucketing is not None:
        by_cost = [
            bucketing.buckets[number].written(bucketing.fps) for number in bucketing.costs[:-1].argsort(kind="stable")
        ]
        return (
            f"data.buckets [{', '.join(by_cost)}] (by cost) among {config.arranged_samples} samples, with "
            f"train.global_batch_size {config.train.global_batch_size}, train.micro_batch_size "
            f"{config.train.micro_batch_size}, data.seconds {config.data.seconds:g} and data.fit {config.data.fit}"
        )
    if not config.data.group_by_length:
        return ""
    return (
        f"data.group_by_length {config.data.group_by_length} with train.global_batch_size "
        f"{config.train.global_batch_size}, data.seconds {config.data.seconds:g} and "
        f"{config.model.tokeniser.motion_rate:g} motion tokens per second"
    )


def build_dataset(
    config: RunConfig,
    reader: ShardReader | Mixture,
    framework: VTokFramework,
    training: bool,
    sources: Sequence[MixtureConfig] | None = None,
) -> ClipDataset:
    """Builds a dataset of the run: the model's views, with tokenised text.

    Args:
        config: The run's configuration.
        reader: The shards.
        framework: The run's framework.
        training: Whether the samples are for training.
        sources: The datasets that ``reader`` joins. The run's if omitted.
    """
    sources = config.data.sources if sources is None else sources
    tokeniser, decoder = views_of(config, framework.tokeniser.feature_extractor.image_size)
    bucketing, shapes = build_bucketing(config, reader, framework, costs=training)
    return ClipDataset(
        reader,
        seed=config.seed,
        seconds=config.data.seconds,
        tokeniser_view=tokeniser,
        decoder_view=decoder,
        fit=config.data.fit,
        decoder=config.data.decoder,
        training=training,
        draw_window=config.data.window == "drawn",
        stored=precomputed.stored_views(config, reader, framework),
        order=build_order(config, reader, bucketing) if training else None,
        bucketing=bucketing,
        shapes=shapes,
        all_turns=config.data.turns == "all",
        silent=frozenset(number for number, source in enumerate(sources) if "dec" not in source.losses),
        transform=SampleToModel(
            framework.text, config.data.text_dropout, sources, training, framework.tokeniser.vectors_of
        ),
    )


def micro_batches(
    dataset: ClipDataset,
    plan: BatchPlan,
    workers: int,
    consumed_samples: int = 0,
    end: int | None = None,
    collate: Callable[[list], Loaded] | None = None,
    patience: float = PATIENCE,
) -> Iterator[Loaded]:
    """Yields this rank's micro-batches on its device, from sample ``consumed_samples`` on: endlessly, or up to ``end``.

    Args:
        dataset: The run's dataset.
        plan: How the batch is divided among ranks.
        workers: Loader processes.
        consumed_samples: Samples of the run before the first one.
        end: Number of the run's last sample, or ``None``.
        collate: Makes a micro-batch of the dataset's items. :func:`collate_of` gives it if omitted.
        patience: Seconds that a loader process may take for a sample before it is replaced.

    Raises:
        LoaderError: A clip and all its substitutes are bad, or shards cannot be read.
    """
    data_rank = distributed.rank() // plan.sequence_parallel
    sampler = RunSampler(
        plan.global_batch_size, plan.micro_batch_size, data_rank, plan.data_ranks, consumed_samples, end
    )
    collate = collate or collate_of(dataset)
    return on_device(read_ahead(dataset, sampler, workers, collate, patience), distributed.device())
