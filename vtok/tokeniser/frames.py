"""``frames``: S spatial tokens of each of k evenly spaced frames. This is the usual way; the paper compares with it."""

from typing import Literal

import torch
from torch import Tensor

from vtok.config import VTokConfig
from vtok.devices import indices_on_device
from vtok.feature_extractor import FeatureExtractor
from vtok.feature_scale import feature_scales
from vtok.spatial_encoder import SpatialEncoder
from vtok.tokeniser.base import Place, TokenCounts, Tokeniser, VisualFeatures
from vtok.tokeniser.layout import evenly_spaced


class FrameTokeniser(Tokeniser):
    """Turns frames into k * S tokens, frame after frame. The number does not depend on the clip's length."""

    def __init__(self, config: VTokConfig, feature_extractor: FeatureExtractor | None = None):
        super().__init__(config, feature_extractor)
        assert config.sampled_frames is not None  # the configuration demands it for this strategy
        self.sampled_frames = config.sampled_frames
        width = self.feature_extractor.width
        self.spatial_encoder = SpatialEncoder(config.spatial_grid_size, width, config.token_dim)
        self.feature_scale = feature_scales(spatial=width)

    def counts(self, num_frames: int, fps: float | None = None) -> TokenCounts:
        return TokenCounts(self.sampled_frames * self.config.num_spatial_tokens, 0)

    def place(self, index: int) -> Place:
        time, cell = divmod(index, self.config.num_spatial_tokens)
        return Place("spatial", cell, time)

    def time_frames(self, num_frames: int, fps: float | None = None, key_frame_idx: int | None = None) -> list[int]:
        return evenly_spaced(num_frames, self.sampled_frames)

    def encode_kind(self, kind: str, features: Tensor) -> Tensor:
        return self.spatial_encoder(features)

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
        wanted = [self.time_frames(count) for count in frame_counts or [length] * batch]
        clip_of_frame = [clip for clip, own in enumerate(wanted) for _ in own]
        clips, indices = indices_on_device(frames.device, clip_of_frame, sum(wanted, []))
        pooled = self.spatial_encoder.pool(self.grids(frames, clips, indices))
        return VisualFeatures(pooled.reshape(batch, -1, pooled.shape[-1]), pooled.new_zeros(batch, 0, 0), [0] * batch)
