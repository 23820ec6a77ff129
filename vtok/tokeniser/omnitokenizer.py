"""``omnitokenizer``: an OmniTokenizer's latents of time stride 4, pooled to as many tokens as ``vtok`` has.

The published codec makes 32 x 32 codes of a frame and of every four frames behind it: 9,216 for five seconds at six
per second. Here the first frame keeps g x g tokens, as in ``vtok``, and each step of four frames 2 x 2. At g = 4 five
seconds cost 16 + 8 * 4 = 48 tokens. One cell a step would give 24, 3 x 3 cells 88.

A token is the mean of the codes' vectors in its cell. ``residual_grid: n`` keeps n x n means of a cell in its token.
"""

from typing import Literal

import torch
from torch import Tensor

from vtok.config import ConfigError, VTokConfig
from vtok.devices import indices_on_device
from vtok.feature_extractor import FeatureExtractor
from vtok.feature_extractor.omnitokenizer import OmniTokenizerFeatures
from vtok.motion_encoder import MotionEncoder, StepEncoder
from vtok.omnitokenizer.model import whole_patches
from vtok.spatial_encoder import pool_grid
from vtok.tokeniser.base import VisualFeatures
from vtok.tokeniser.grid_steps import GridStepsTokeniser

STEP_GRID = 2  # cells along a side of a step


class OmniTokeniser(GridStepsTokeniser):
    """Turns frames into S + M tokens: pooled latents of the first frame, and of each step of frames behind it."""

    cells_per_step = STEP_GRID**2

    def __init__(self, config: VTokConfig, feature_extractor: FeatureExtractor | None = None):
        super().__init__(config, feature_extractor)
        self.frames_per_step = self.codec.tokenizer.config.temporal_patch_size

    def cell_width(self, width: int) -> int:
        return width * self.config.residual_grid**2

    def build_motion_encoder(self, width: int) -> StepEncoder:
        config = self.config
        return MotionEncoder(config.residual_grid, width, config.token_dim, config.motion_hidden_dim)

    @property
    def codec(self) -> OmniTokenizerFeatures:
        if not isinstance(self.feature_extractor, OmniTokenizerFeatures):
            raise ConfigError("tokeniser.strategy omnitokenizer needs tokeniser.backbone omnitokenizer")
        return self.feature_extractor

    @torch.no_grad()
    def features(
        self,
        frames: Tensor,
        frame_counts: list[int] | None = None,
        fps: float | None = None,
        key_frame_idx: int | Literal["detect"] | None = None,
        vectors: Tensor | None = None,
    ) -> VisualFeatures:
        self.require_first_frame(key_frame_idx)
        counts = frame_counts or [frames.shape[1]] * len(frames)
        # Clip by clip: in the published codec latents depend on the length of the video.
        latents = [self.latents(clip, self.own_frames(count, fps)) for clip, count in zip(frames, counts)]
        grid, inner = self.config.spatial_grid_size, self.config.residual_grid
        spatial = torch.cat([cells(clip[:1], grid, inner) for clip in latents])
        steps = [cells(clip[1:], STEP_GRID, inner).flatten(0, 1) for clip in latents]
        motion = torch.nn.utils.rnn.pad_sequence(steps, batch_first=True)
        dtype = next(self.motion_encoder.parameters()).dtype
        return VisualFeatures(spatial.to(dtype), motion.to(dtype), [len(own) for own in steps])

    def latents(self, clip: Tensor, wanted: list[int]) -> Tensor:
        """Returns the codes' vectors (1 + k, grid, grid, width) of some frames of a clip (T, 3, H, W).

        Copies of the last one fill up the last patch.
        """
        missing = whole_patches(len(wanted), self.frames_per_step) - len(wanted)
        (index,) = indices_on_device(clip.device, wanted + wanted[-1:] * missing)
        return self.codec.video(clip[index][None])[0]


def cells(latents: Tensor, grid: int, inner: int) -> Tensor:
    """Pools latents (n, h, w, d) to (n, grid * grid, inner * inner * d): each cell has the means of its parts."""
    pooled = pool_grid(latents, grid * inner).unflatten(1, (grid, inner, grid, inner))
    return pooled.transpose(2, 3).flatten(3).flatten(1, 2)
