"""Validation: losses on held-out clips, and the model's captions and videos for a few of them.

The figures do not depend on the number of ranks. Rows come in their stored order, with the window at the centre and
every draw keyed by the row. They are divided into batches of ``train.micro_batch_size``, and the batches among the
ranks. All ranks must run the same modules equally often, so the last batches may go past the end. Rows past the end do
not count.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch

from data_tools.dataset import ClipDataset
from pipelines.config import VALIDATE_EVERY, RunConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import BatchPlan, batch_digest, in_global_order
from pipelines.engine.loading.loader import build_dataset, micro_batches
from pipelines.engine.outputs import HeldOut
from pipelines.engine.watching.examples import Caption, Example, Video, caption_of, example_of, video_of
from vtok.config import require
from vtok.framework import LOSSES, VTokFramework


class Validated(NamedTuple):
    """The results of a validation, the same on every rank."""

    figures: dict
    captions: list[Caption]
    videos: list[Video]


class Split(NamedTuple):
    """A held-out split as it is validated.

    Attributes:
        name: That of its dataset.
        dataset: Its samples.
        samples: The number of them that are used.
        weight: The weight of its losses among all splits.
    """

    name: str
    dataset: ClipDataset
    samples: int
    weight: float


class Validation:
    """Validates a model on held-out shards, always on the same samples.

    Args:
        config: The run's configuration.
        held_out: The held-out splits.
        framework: The run's framework.

    Raises:
        ConfigError: Videos are asked for, but the decoder needs two experts for them and a training run holds one.
    """

    def __init__(self, config: RunConfig, held_out: list[HeldOut], framework: VTokFramework):
        require(
            config.model.decoder.expert is None or config.validation.videos == 0,
            "a video takes both experts of this decoder, and a training run holds one: set validation.videos to 0",
        )
        self.config, self.device = config, distributed.device()
        self.every = config.validation.every or VALIDATE_EVERY
        self.splits = [
            Split(
                source.title,
                build_dataset(config, reader, framework, training=False, sources=[source]),
                min(config.validation.samples, len(reader)),
                weight,
            )
            for source, reader, weight in held_out
        ]
        videos = config.validation.videos if config.model.generates else 0
        self.to_caption = self.examples("frames", config.validation.captions)  # texts show no video
        self.to_draw = self.examples("words", videos)  # no video is made of an empty caption

    def examples(self, column: str, most: int) -> list[Example]:
        """Returns the first samples whose manifest has no 0 in a column, from each split in turn."""
        rows = [
            np.flatnonzero(split.dataset.reader.facts(np.arange(len(split.dataset)))[column])[:most]
            for split in self.splits
        ]
        turns = (zip(self.splits, turn) for turn in zip_longest(*rows))
        chosen = [(split, int(row)) for turn in turns for split, row in turn if row is not None][:most]
        found = [(split, example_of(split.dataset[row].sample)) for split, row in chosen]
        several = len(self.splits) > 1
        return [replace(example, key=f"{split.name}/{example.key}") if several else example for split, example in found]

    def due(self, step: int, max_steps: int) -> bool:
        return step % self.every == 0 or step == max_steps

    def run(self, framework: VTokFramework) -> Validated:
        """Judge the weights that are in place; every rank calls this at the same step."""
        with evaluating(framework):
            return Validated(
                self.figures(framework),
                [caption_of(example, framework, self.device) for example in self.to_caption],
                [video_of(example, framework, self.config) for example in self.to_draw],
            )

    def figures(self, framework: VTokFramework) -> dict:
        """Returns the mean losses of the samples, their number, and the digest of their keys.

        Of several splits each has its own mean losses. The mean of these is weighted as the datasets in training.
        """
        judged = [self.judge(split, framework) for split in self.splits]
        total = math.fsum(split.weight for split in self.splits)
        figures: dict = {
            name: math.fsum(split.weight * losses[name] for split, (losses, _) in zip(self.splits, judged)) / total
            for name in LOSSES
        }
        figures["samples"] = sum(split.samples for split in self.splits)
        figures["digest"] = batch_digest([key for _, keys in judged for key in keys])
        if len(judged) > 1:
            for split, (losses, _) in zip(self.splits, judged):
                figures |= {f"{name}/{split.name}": loss for name, loss in losses.items()}
        return figures

    def judge(self, split: Split, framework: VTokFramework) -> tuple[dict[str, float], tuple[str, ...]]:
        """Returns the mean losses of a split's samples, and their keys."""
        ranks, train = distributed.world_size(), self.config.train
        size, shared_by = train.micro_batch_size, train.sequence_parallel
        plan = BatchPlan(ranks // shared_by * size, ranks, size, 1, shared_by)
        end = -(-split.samples // plan.global_batch_size) * plan.global_batch_size
        rows = []
        workers, patience = self.config.data.workers, train.sample_seconds
        for loaded in micro_batches(split.dataset, plan, workers, end=end, patience=patience):
            losses = framework(loaded.batch, reduce=False)
            rows.append(list(zip(loaded.batch.keys, *(losses[name].tolist() for name in LOSSES))))
        by_rank = plan.one_of_each_group(distributed.gather_lists(rows))
        keys, *columns = zip(*in_global_order(by_rank)[: split.samples])
        return {name: math.fsum(column) / split.samples for name, column in zip(LOSSES, columns)}, keys


@contextmanager
def evaluating(framework: VTokFramework) -> Iterator[None]:
    """Switches to evaluation mode without gradients. Afterwards mode and torch's random state are as before."""
    training = framework.training
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        framework.eval()
        try:
            yield
        finally:
            framework.train(training)
