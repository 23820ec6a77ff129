"""The video tokeniser: S spatial tokens of the key frame, then one motion token per later step (paper, section 3.1).

It works in two stages, so that the visual head has a frozen target and sampling can go the other way round:

    frames --features()--> VisualFeatures (frozen) --encode()--> tokens (trainable)
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vtok.config import VTokConfig
from vtok.feature_extractor import build_feature_extractor
from vtok.key_frame import detect_key_frame
from vtok.layout import motion_frames
from vtok.motion_encoder import MotionEncoder
from vtok.spatial_encoder import SpatialEncoder


class VisualFeatures(NamedTuple):
    """Frozen, pooled features of B clips.

    Attributes:
        spatial: (B, S, d_v), the key frames' pooled grids.
        motion: (B, M, residual_dim), pooled residuals; zero behind a clip's own count.
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


class VTokTokeniser(nn.Module):
    """Frames to tokens. ``F`` is frozen; ``g_phi`` (and the linear layer, if widths differ) train.

    Args:
        config: the settings.
        feature_extractor: ``F``; built from ``config`` if omitted.

    >>> config = VTokConfig(backbone="clip", spatial_grid_size=4, token_dim=1024)
    >>> VTokTokeniser(config)(torch.randn(1, 30, 3, 336, 336)).shape
    torch.Size([1, 20, 1024])
    """

    def __init__(self, config: VTokConfig, feature_extractor: nn.Module | None = None):
        super().__init__()
        self.config = config
        self.feature_extractor = feature_extractor or build_feature_extractor(config)
        width = self.feature_extractor.width
        self.spatial_encoder = SpatialEncoder(config.spatial_grid_size, width, config.token_dim)
        self.motion_encoder = MotionEncoder(config.residual_grid, width, config.token_dim)

    @torch.no_grad()
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
                use their last frame.

        Raises:
            ConfigError: ``key_frame_idx`` is not a frame of the video, or the rate exceeds ``fps``.
        """
        batch, length = frames.shape[:2]
        frame_counts = frame_counts or [length] * batch
        keys = self.key_frames(frames, frame_counts, fps, key_frame_idx)
        wanted = [motion_frames(count, self.config, fps, k) for count, k in zip(frame_counts, keys)]
        counts = [len(indices) for indices in wanted]

        clip_of_motion = [clip for clip, count in enumerate(counts) for _ in range(count)]
        clips = torch.tensor(list(range(batch)) + clip_of_motion, device=frames.device)
        indices = torch.tensor(keys + sum(wanted, []), device=frames.device)
        encoded = self.feature_extractor(frames[clips, indices])

        key_features = encoded[:batch]
        spatial = self.spatial_encoder.pool(key_features)
        residuals = self.motion_encoder.pool(encoded[batch:], key_features[clips[batch:]])
        motion = residuals.new_zeros(batch, max(counts), self.motion_encoder.residual_dim)
        motion[clips[batch:], place_in_clip(counts, frames.device)] = residuals
        return VisualFeatures(spatial, motion, counts)

    def key_frames(
        self,
        frames: Tensor,
        frame_counts: list[int],
        fps: float | None = None,
        key_frame_idx: int | Literal["detect"] | None = None,
    ) -> list[int]:
        """Each clip's key frame; arguments and errors as in :meth:`features`."""
        key = self.config.key_frame_idx if key_frame_idx is None else key_frame_idx
        if key == "detect":
            return [detect_key_frame(clip[:count]) for clip, count in zip(frames, frame_counts)]
        motion_frames(frames.shape[1], self.config, fps, key)  # refuses a key frame outside the batch
        return [min(key, count - 1) for count in frame_counts]

    def encode(self, features: VisualFeatures) -> Tensor:
        """Tokens (B, S + M, token_dim), spatial first. Those behind a clip's own count are padding."""
        return torch.cat([self.spatial_encoder(features.spatial), self.motion_encoder(features.motion)], dim=1)

    def forward(
        self,
        frames: Tensor,
        frame_counts: list[int] | None = None,
        fps: float | None = None,
        key_frame_idx: int | Literal["detect"] | None = None,
    ) -> Tensor:
        """Tokens (B, S + M, token_dim) of ``frames``; arguments as in :meth:`features`."""
        return self.encode(self.features(frames, frame_counts, fps, key_frame_idx))


def place_in_clip(counts: list[int], device: torch.device) -> Tensor:
    """0 ... count - 1 for each clip in turn: where each of the flattened entries stands in its own clip."""
    return torch.cat([torch.arange(count, device=device) for count in counts])
