"""``none``: no visual token. Videos are generated from their text only, and understanding sees no video."""

from typing import Literal

from torch import Tensor

from vtok.config import VTokConfig
from vtok.feature_extractor import FeatureExtractor
from vtok.feature_scale import feature_scales
from vtok.tokeniser.base import Place, TokenCounts, Tokeniser, VisualFeatures


class NoTokeniser(Tokeniser):
    """Turns frames into no token. ``F`` never runs; data loading reads its image size."""

    def __init__(self, config: VTokConfig, feature_extractor: FeatureExtractor | None = None):
        super().__init__(config, feature_extractor)
        self.feature_scale = feature_scales()

    def counts(self, num_frames: int, fps: float | None = None) -> TokenCounts:
        return TokenCounts(0, 0)

    def place(self, index: int) -> Place:
        raise IndexError(f"no token {index}: this strategy has none")

    def time_frames(self, num_frames: int, fps: float | None = None, key_frame_idx: int | None = None) -> list[int]:
        return []

    def features(
        self,
        frames: Tensor,
        frame_counts: list[int] | None = None,
        fps: float | None = None,
        key_frame_idx: int | Literal["detect"] | None = None,
        vectors: Tensor | None = None,
    ) -> VisualFeatures:
        nothing = frames.new_zeros(len(frames), 0, 0, dtype=next(self.parameters()).dtype)
        return VisualFeatures(nothing, nothing, [0] * len(frames))

    def encode(self, features: VisualFeatures) -> Tensor:
        return features.spatial.new_zeros(len(features.motion_counts), 0, self.config.token_dim)
