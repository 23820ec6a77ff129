"""Validation in training on held-out videos: always the same clips, the middles of the first videos of the split.

``loss`` is the reconstruction loss, ``rec_loss``; with an average of the weights it is that of the average.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from data_tools.shards import ShardReader
from data_tools.video.files import VideoFiles
from data_tools.video.views import CENTRE, View, make_views, window
from pipelines.config import VALIDATE_EVERY
from pipelines.engine import distributed
from pipelines.engine.loop import Player
from pipelines.engine.watching.examples import Video
from pipelines.engine.watching.metrics import Metrics
from pipelines.vidtok_training.data import VideoRun


class HeldOutValidation(ABC):
    """Validates a run's weights.

    Args:
        config: The run's configuration.
        reader: The held-out videos.
    """

    def __init__(self, config: VideoRun, reader: ShardReader | VideoFiles):
        self.data, self.reader = config.data, reader
        self.every = VALIDATE_EVERY if config.validation.every is None else config.validation.every
        self.samples = min(config.validation.samples, len(reader))

    @abstractmethod
    def measured(self, model: nn.Module, row: int) -> tuple[dict[str, float], Video | None]:
        """Returns the scores of a video's clip, ``rec_loss`` among them, and the clip if it is to be shown."""

    def due(self, step: int, max_steps: int) -> bool:
        """Whether to validate after a step."""
        return step % self.every == 0 or step == max_steps

    def judge(self, number: int, max_steps: int, player: Player, log: Metrics | None) -> None:
        """Validates after step ``number``, if it is due. All ranks call this; rank 0 has the log."""
        if not self.due(number, max_steps):
            return
        model = player.engine.module.model
        figures, shown = self.run(model)
        loss = figures["rec_loss"]
        if player.ema:
            with player.ema.applied():
                averaged, shown = self.run(model)
            figures |= {f"{name}_ema": value for name, value in averaged.items()}
            loss = averaged["rec_loss"]
        if log:
            log.validation(number, {"loss": loss} | figures | {"samples": self.samples}, [], shown)

    @torch.no_grad()
    def run(self, model: nn.Module) -> tuple[dict[str, float], list[Video]]:
        """Returns the means over all samples, and the samples to show.

        Every rank measures equally many clips, since FSQ's entropy is computed over all ranks together.
        """
        rank, ranks, training = distributed.rank(), distributed.world_size(), model.training
        model.eval()
        rows = []
        for first in range(0, self.samples, ranks):
            row = min(first + rank, self.samples - 1)
            rows.append((row, *self.measured(model, row)))
        model.train(training)
        by_row = {row: rest for found in distributed.gather_lists(rows) for row, *rest in found}
        scores = [by_row[row][0] for row in range(self.samples)]
        figures = {name: math.fsum(score[name] for score in scores) / self.samples for name in scores[0]}
        return figures, [video for _, video in (by_row[row] for row in range(self.samples)) if video is not None]

    def clip(self, row: int) -> tuple[Tensor, str]:
        """Returns the frames (T, 3, H, W) ``uint8`` of a video's middle, and its key."""
        data, raw = self.data, self.reader.read(row)
        facts = raw.meta["facts"]
        view = View(data.fps, data.frames, data.height, data.width)
        start = window(facts["duration"], (data.frames - 1) / data.fps, CENTRE)
        how = data.fit, data.decoder, (), facts.get("entry")
        return make_views(raw.video, facts["duration"], view, None, start, *how).frames, raw.key
