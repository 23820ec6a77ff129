"""``vtok``: S spatial tokens of the key frame, then one motion token per later step (paper, section 3.2)."""

from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from vtok.config import VTokConfig
from vtok.devices import indices_on_device
from vtok.feature_extractor import FeatureExtractor
from vtok.feature_scale import feature_scales
from vtok.motion_encoder import MeanMotionEncoder, MotionEncoder, QueryMotionEncoder, StepEncoder
from vtok.spatial_encoder import SpatialEncoder
from vtok.tokeniser.base import Place, TokenCounts, Tokeniser, VisualFeatures
from vtok.tokeniser.layout import motion_frames, num_motion_tokens, references


class VTokTokeniser(Tokeniser):
    """Turns frames into S + M tokens. ``F`` is frozen; ``g_phi`` and, if widths differ, a linear layer train.

    >>> config = VTokConfig(backbone="clip", spatial_grid_size=4, token_dim=1024)
    >>> VTokTokeniser(config)(torch.randn(1, 30, 3, 336, 336)).shape
    torch.Size([1, 20, 1024])
    """

    def __init__(self, config: VTokConfig, feature_extractor: FeatureExtractor | None = None):
        super().__init__(config, feature_extractor)
        width = self.feature_extractor.width
        self.spatial_encoder = SpatialEncoder(config.spatial_grid_size, self.cell_width(width), config.token_dim)
        self.motion_encoder = self.build_motion_encoder(width)
        self.feature_scale = feature_scales(spatial=self.cell_width(width), motion=self.motion_encoder.residual_dim)

    def cell_width(self, width: int) -> int:
        """Returns how many values a cell of the key frame has, of features of ``width``."""
        return width

    def build_motion_encoder(self, width: int) -> StepEncoder:
        """Builds ``g_phi`` with its pooling, for features of ``width``."""
        config = self.config
        kind = QueryMotionEncoder if config.residual_pooling == "query" else MotionEncoder
        if self.feature_extractor.in_language_space:  # such a language model can read these from the start
            kind = MeanMotionEncoder
        return kind(config.residual_grid, width, config.token_dim, config.motion_hidden_dim)

    def counts(self, num_frames: int, fps: float | None = None) -> TokenCounts:
        return TokenCounts(self.config.num_spatial_tokens, num_motion_tokens(num_frames, self.config, fps))

    def place(self, index: int) -> Place:
        split = self.config.num_spatial_tokens
        return Place("spatial", cell=index) if index < split else Place("motion", time=index - split)

    def time_frames(self, num_frames: int, fps: float | None = None, key_frame_idx: int | None = None) -> list[int]:
        return motion_frames(num_frames, self.config, fps, key_frame_idx)

    def encode_kind(self, kind: str, features: Tensor) -> Tensor:
        if kind == "spatial":
            return self.spatial_encoder(features)
        return self.motion_encoder(features, self.feature_scale["motion"])

    @torch.no_grad()
    def features(
        self,
        frames: Tensor,
        frame_counts: list[int] | None = None,
        fps: float | None = None,
        key_frame_idx: int | Literal["detect"] | None = None,
        vectors: Tensor | None = None,
    ) -> VisualFeatures:
        batch, length = frames.shape[:2]
        frame_counts = frame_counts or [length] * batch
        keys = self.key_frames(frames, frame_counts, key_frame_idx)
        wanted = [self.time_frames(count, fps, key) for count, key in zip(frame_counts, keys)]
        counts = [len(indices) for indices in wanted]

        clip_of_motion = [clip for clip, count in enumerate(counts) for _ in range(count)]
        clips, indices, step = indices_on_device(
            frames.device,
            list(range(batch)) + clip_of_motion,
            keys + sum(wanted, []),
            [step for count in counts for step in range(count)],
        )
        encoded = self.grids(frames, clips, indices)
        ends = list(accumulate(counts, initial=batch))
        rows = [[clip, *range(ends[clip], ends[clip + 1])] for clip in range(batch)]
        key_steps = self.key_steps(encoded, rows)
        spatial, spatial_counts = self.spatial(encoded, rows, key_steps)

        previous = self.config.residual_to == "previous"
        places = [references(*clip[:2], previous, clip[2]) for clip in zip(wanted, keys, key_steps)]
        (referred,) = indices_on_device(
            frames.device, [own[place] for own, of_clip in zip(rows, places) for place in of_clip]
        )
        residuals = self.motion_encoder.pool(encoded[batch:], encoded[referred])
        motion = residuals.new_zeros(batch, max(counts), self.motion_encoder.residual_dim)
        motion[clips[batch:], step] = residuals
        return VisualFeatures(spatial, motion, counts, spatial_counts, key_steps)

    def key_steps(self, encoded: Tensor, rows: list[list[int]]) -> list[list[int]]:
        """Returns the steps of each clip whose frames are further key frames, ascending. Here there are none.

        Args:
            encoded: (n, h, w, d_v), the features of all frames that have a token.
            rows: For each clip, the place in ``encoded`` of its key frame and then of each step.
        """
        return [[] for _ in rows]

    def spatial(
        self, encoded: Tensor, rows: list[list[int]], key_steps: list[list[int]]
    ) -> tuple[Tensor, list[int] | None]:
        """Returns ``spatial`` and ``spatial_counts`` of the features. Arguments as in :meth:`key_steps`."""
        return self.spatial_encoder.pool(encoded[: len(rows)]), None
