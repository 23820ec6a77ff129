"""Validation of a VidTok in training: how near its reconstructions of held-out videos are.

Always the same clips: the first videos of the split, each in the middle, as whole frames. The published code's
``val/rec_loss`` is ``rec_loss`` here, of the weights and, with an average of the weights, of the average (``_ema``).
``loss`` is the last of the two.
"""

import math

import torch
from torch import Tensor

from data_tools.shards import ShardReader
from data_tools.video.files import VideoFiles
from data_tools.video.views import CENTRE, View, make_views, window
from pipelines.config import VALIDATE_EVERY
from pipelines.engine import distributed
from pipelines.engine.loop import Player
from pipelines.engine.watching.examples import Video
from pipelines.engine.watching.metrics import Metrics
from pipelines.vidtok_training.clips import to_model, to_pixels
from pipelines.vidtok_training.config import VidTokRunConfig
from vtok.vidtok import VidTok, metrics
from vtok.vidtok.losses.perceptual import LPIPS


class Validation:
    """Validates a run's weights.

    Args:
        config: The run's configuration.
        reader: The held-out videos.
        lpips: The perceptual network, or ``None``.
    """

    def __init__(self, config: VidTokRunConfig, reader: ShardReader | VideoFiles, lpips: LPIPS | None):
        self.config, self.reader, self.lpips = config, reader, lpips
        self.every = VALIDATE_EVERY if config.validation.every is None else config.validation.every
        self.samples = min(config.validation.samples, len(reader))

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
    def run(self, model: VidTok) -> tuple[dict[str, float], list[Video]]:
        """Returns the means over all samples, and the first samples beside their reconstructions.

        Every rank reconstructs equally many clips, since FSQ's entropy is computed over all ranks together.
        """
        rank, ranks, training = distributed.rank(), distributed.world_size(), model.training
        model.eval()
        rows = []
        for first in range(0, self.samples, ranks):
            row = min(first + rank, self.samples - 1)
            rows.append((row, *self.reconstructed(model, row)))
        model.train(training)
        by_row = {row: rest for found in distributed.gather_lists(rows) for row, *rest in found}
        scores = [by_row[row][0] for row in range(self.samples)]
        figures = {name: math.fsum(score[name] for score in scores) / self.samples for name in scores[0]}
        return figures, [by_row[row][1] for row in range(min(self.config.validation.videos, self.samples))]

    def reconstructed(self, model: VidTok, row: int) -> tuple[dict[str, float], Video | None]:
        """Returns the scores of a video's clip and, for the first videos, the clip beside its reconstruction."""
        frames, key = self.clip(row)
        device, dtype = next(model.parameters()).device, model.decoder.last_layer.dtype
        x = to_model(frames).to(device)
        y = model(x.to(dtype))[1].float()
        error = (x - y).abs().mean()
        pictures = [(0.5 * (one[0].transpose(0, 1).clamp(-1, 1) + 1)) for one in (x, y)]
        if self.lpips is not None:
            error = error + self.lpips(*(one[0].transpose(0, 1) for one in (x, y))).mean()
        scores = {"rec_loss": error.item(), "psnr": metrics.psnr(*pictures).mean().item()}
        if row >= self.config.validation.videos:
            return scores, None
        pair = torch.cat([to_pixels(x), to_pixels(y)], dim=-1)
        return scores, Video(key, "the clip, then its reconstruction", pair, self.config.data.fps)

    def clip(self, row: int) -> tuple[Tensor, str]:
        """Returns the frames (T, 3, H, W) ``uint8`` of a video's middle, and its key."""
        data, raw = self.config.data, self.reader.read(row)
        facts = raw.meta["facts"]
        view = View(data.fps, data.frames, data.height, data.width)
        start = window(facts["duration"], (data.frames - 1) / data.fps, CENTRE)
        how = data.fit, data.decoder, (), facts.get("entry")
        return make_views(raw.video, facts["duration"], view, None, start, *how).frames, raw.key
