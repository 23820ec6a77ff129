"""What a tokenisation strategy tells the rest of the model.

A strategy works in two stages, so that the visual heads have a frozen target and sampling can go the other way round:

    frames --features()--> VisualFeatures (frozen) --encode()--> tokens (trainable)

There are two kinds of token, ``spatial`` (one cell of a frame) and ``motion`` (one step in time); spatial ones stand
first. A strategy uses both, one or none. It says which features the heads learn to predict (``feature_scale``), how
many tokens a clip takes (:meth:`Tokeniser.counts`) and where each stands in space and time (:meth:`Tokeniser.place`).
Language model, heads, losses, packing, planning, precomputing and sampling follow from these and know no strategy.
Motion vectors of a codec would be other features of the kind ``motion``, 3D patches ``spatial`` ones with a cell and a
time.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vtok.config import VTokConfig, require
from vtok.feature_extractor import FeatureExtractor, build_feature_extractor
from vtok.tokeniser.key_frame import detect_key_frame
from vtok.tokeniser.layout import require_key_frame


class TokenCounts(NamedTuple):
    """Tokens of one clip, by kind."""

    spatial: int
    motion: int


class Place(NamedTuple):
    """Where a token stands: its kind, its cell of the grid and its step in time, where it has one."""

    kind: Literal["spatial", "motion"]
    cell: int | None = None
    time: int | None = None


class VisualFeatures(NamedTuple):
    """Frozen, pooled features of B clips.

    Attributes:
        spatial: (B, S, d_v), pooled cells; every clip has all S.
        motion: (B, M, residual_dim), one a step in time; zero behind a clip's own count.
        motion_counts: each clip's own number of motion tokens, at most M.
    """

    spatial: Tensor
    motion: Tensor
    motion_counts: list[int]

    def of(self, kind: str) -> tuple[Tensor, list[int]]:
        """The features of one kind, ``spatial`` or ``motion``, and each clip's own number of them."""
        if kind == "motion":
            return self.motion, self.motion_counts
        return self.spatial, [self.spatial.shape[1]] * len(self.motion_counts)

    @property
    def token_counts(self) -> list[int]:
        """S + M of each clip."""
        return [self.spatial.shape[1] + count for count in self.motion_counts]


class Tokeniser(nn.Module):
    """Frames to tokens. The feature extractor ``F`` is frozen; the encoders train.

    Args:
        config: the settings.
        feature_extractor: ``F``; built from ``config`` if omitted.

    Attributes:
        feature_scale: mean and deviation of the frozen features of each kind of token this strategy has, in the
            tokens' order; 0 and 1 until they are measured.
    """

    feature_scale: nn.ModuleDict

    def __init__(self, config: VTokConfig, feature_extractor: FeatureExtractor | None = None):
        super().__init__()
        self.config = config
        self.feature_extractor = feature_extractor or build_feature_extractor(config)

    @property
    def feature_dims(self) -> dict[str, int]:
        """Width of the frozen features of each kind."""
        return {kind: scale.mean.numel() for kind, scale in self.feature_scale.items()}

    def counts(self, num_frames: int, fps: float | None = None) -> TokenCounts:
        """Tokens of a clip of ``num_frames`` frames at ``fps`` (``config.fps`` if omitted)."""
        raise NotImplementedError

    def place(self, index: int) -> Place:
        """Where token ``index`` of any clip stands."""
        raise NotImplementedError

    def time_frames(self, num_frames: int, fps: float | None = None, key_frame_idx: int | None = None) -> list[int]:
        """The frame that each step in time looks at, ascending."""
        raise NotImplementedError

    def features(
        self,
        frames: Tensor,
        frame_counts: list[int] | None = None,
        fps: float | None = None,
        key_frame_idx: int | Literal["detect"] | None = None,
    ) -> VisualFeatures:
        """Frozen features of the frames that some token looks at; the others are never encoded.

        Args:
            frames: (B, T, 3, H, W), ``uint8``, or floating point already normalised as the backbone wants it.
            frame_counts: real frames of each clip, at most T (default: all T); the rest is padding.
            fps: frames per second of ``frames``; ``config.fps`` if omitted.
            key_frame_idx: overrides ``config.key_frame_idx``, an index or ``detect``; clips shorter than the index
                use their last frame. Strategies without a key frame ignore it.

        Raises:
            ConfigError: ``key_frame_idx`` is not a frame of the video, or the rate exceeds ``fps``.
        """
        raise NotImplementedError

    def encode_kind(self, kind: str, features: Tensor) -> Tensor:
        """Frozen features of one kind (..., feature_dims[kind]) to tokens (..., token_dim)."""
        raise NotImplementedError

    def encode(self, features: VisualFeatures) -> Tensor:
        """Tokens (B, S + M, token_dim), spatial first. Those behind a clip's own count are padding."""
        return torch.cat([self.encode_kind(kind, features.of(kind)[0]) for kind in self.feature_scale], dim=1)

    def forward(
        self,
        frames: Tensor,
        frame_counts: list[int] | None = None,
        fps: float | None = None,
        key_frame_idx: int | Literal["detect"] | None = None,
    ) -> Tensor:
        """Tokens (B, S + M, token_dim) of ``frames``; arguments as in :meth:`features`."""
        return self.encode(self.features(frames, frame_counts, fps, key_frame_idx))

    def grids(self, frames: Tensor, clips: Tensor, indices: Tensor) -> Tensor:
        """``F`` of n frames (n, h, w, d_v), each as its backbone takes it: with those before it, if that takes several.

        The first frame of a clip stands for those that would lie before it.

        Args:
            frames: (B, T, 3, H, W).
            clips, indices: (n,), which clip's frame, and which.
        """
        before = reversed(range(self.feature_extractor.temporal_patch))
        return self.feature_extractor(*(frames[clips, (indices - back).clamp_min(0)] for back in before))

    def key_frames(
        self, frames: Tensor, frame_counts: list[int], key_frame_idx: int | Literal["detect"] | None = None
    ) -> list[int]:
        """Each clip's key frame; arguments and errors as in :meth:`features`."""
        key = self.config.key_frame_idx if key_frame_idx is None else key_frame_idx
        require(
            key == 0 or self.feature_extractor.temporal_patch == 1,
            f"the backbone {self.config.backbone} takes the first frame as key frame: leave key_frame_idx at 0",
        )
        if key == "detect":
            return [detect_key_frame(clip[:count]) for clip, count in zip(frames, frame_counts)]
        require_key_frame(key, frames.shape[1])
        return [min(key, count - 1) for count in frame_counts]
