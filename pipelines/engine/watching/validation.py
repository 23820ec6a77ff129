"""Validation: losses on held-out clips, and the model's captions and videos for a few of them.

The figures do not depend on the number of ranks. Rows come in their stored order, with the window at the centre and
every draw keyed by the row. They are divided into batches of ``train.micro_batch_size``, and the batches among the
ranks. All ranks must run the same modules equally often, so the last batches may go past the end. Rows past the end do
not count.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from data_tools.shards import ShardReader
from pipelines.config import VALIDATE_EVERY, RunConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import BatchPlan, batch_digest, in_global_order
from pipelines.engine.loading.loader import build_dataset, micro_batches
from pipelines.engine.watching.examples import Caption, Video, caption_of, example_of, video_of
from vtok.config import require
from vtok.framework import LOSSES, VTokFramework


class Validated(NamedTuple):
    """The results of a validation, the same on every rank."""

    figures: dict
    captions: list[Caption]
    videos: list[Video]


class Validation:
    """Validates a model on held-out shards, always on the same samples.

    Args:
        config: The run's configuration.
        reader: The held-out shards.
        framework: The run's framework.

    Raises:
        ConfigError: Videos are asked for, but the decoder needs two experts for them and a training run holds one.
    """

    def __init__(self, config: RunConfig, reader: ShardReader, framework: VTokFramework):
        require(
            config.model.decoder.expert is None or config.validation.videos == 0,
            "a video takes both experts of this decoder, and a training run holds one: set validation.videos to 0",
        )
        self.config, self.device = config, distributed.device()
        self.every = config.validation.every or VALIDATE_EVERY
        self.dataset = build_dataset(config, reader, framework, training=False)
        self.samples = min(config.validation.samples, len(reader))
        asked = np.flatnonzero(reader.rows["frames"])[: config.validation.captions].tolist()  # texts show no video
        videos = config.validation.videos if config.model.generates else 0
        captioned = np.flatnonzero(reader.rows["words"])[:videos].tolist()  # no video is made of an empty caption
        examples = {row: example_of(self.dataset[row].sample) for row in sorted({*asked, *captioned})}
        self.to_caption = [examples[row] for row in asked]
        self.to_draw = [examples[row] for row in captioned]

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
        """Returns the mean losses of the samples, their number, and the digest of their keys."""
        ranks, size = distributed.world_size(), self.config.train.micro_batch_size
        plan = BatchPlan(ranks * size, ranks, size, accumulation=1)
        end = -(-self.samples // plan.global_batch_size) * plan.global_batch_size
        rows = []
        patience = self.config.train.sample_seconds
        for loaded in micro_batches(self.dataset, plan, self.config.data.workers, end=end, patience=patience):
            losses = framework(loaded.batch, reduce=False)
            rows.append(list(zip(loaded.batch.keys, *(losses[name].tolist() for name in LOSSES))))
        keys, *columns = zip(*in_global_order(distributed.gather_lists(rows))[: self.samples])
        means = {name: math.fsum(column) / self.samples for name, column in zip(LOSSES, columns)}
        return means | {"samples": self.samples, "digest": batch_digest(keys)}


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
