"""Validation of a VidTok in training: how near its reconstructions of held-out videos are, as whole frames.

The published code's ``val/rec_loss`` is ``rec_loss`` here, of the weights and, with an average of the weights, of the
average (``_ema``).
"""

import torch

from data_tools.shards import ShardReader
from data_tools.video.files import VideoFiles
from pipelines.engine.watching.examples import Video
from pipelines.vidtok_training.clips import to_model, to_pixels
from pipelines.vidtok_training.config import VidTokRunConfig
from pipelines.vidtok_training.held_out import HeldOutValidation
from vtok.vidtok import VidTok, metrics
from vtok.vidtok.losses.perceptual import LPIPS


class Validation(HeldOutValidation):
    """Validates a VidTok.

    Args:
        config: The run's configuration.
        reader: The held-out videos.
        lpips: The perceptual network, or ``None``.
    """

    def __init__(self, config: VidTokRunConfig, reader: ShardReader | VideoFiles, lpips: LPIPS | None):
        super().__init__(config, reader)
        self.lpips, self.videos = lpips, config.validation.videos

    def measured(self, model: VidTok, row: int) -> tuple[dict[str, float], Video | None]:  # type: ignore[override]
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
        if row >= self.videos:
            return scores, None
        pair = torch.cat([to_pixels(x), to_pixels(y)], dim=-1)
        return scores, Video(key, "the clip, then its reconstruction", pair, self.data.fps)
