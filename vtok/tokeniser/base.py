"""The interface of a tokenisation strategy.

A strategy works in two stages. The visual heads predict the frozen output of the first stage. Sampling starts from such
predictions and runs the second stage only.

    frames --features()--> VisualFeatures (frozen) --encode()--> tokens (trainable)

There are two kinds of token. A ``spatial`` token is one cell of a frame. A ``motion`` token is one step in time.
Spatial tokens come first. A strategy uses both kinds, one or none. It names the features that the heads learn to
predict (``feature_scale``), the number of tokens of a clip (:meth:`Tokeniser.counts`) and the place of each in space
and time (:meth:`Tokeniser.place`). Language model, heads, losses, packing, planning, precomputing and sampling use only
this interface.

Other tokenisations fit in: codes of motion vectors are ``motion`` features (``video-lavit``), and 3D patches are
``spatial`` tokens with a cell and a time (``omnitokenizer``).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vtok.config import ConfigError, VTokConfig
from vtok.feature_extractor import FeatureExtractor, build_feature_extractor
from vtok.feature_scale import FeatureScale
from vtok.module_table import ModuleTable
from vtok.tokeniser.key_frame import detect_key_frame
from vtok.tokeniser.layout import require_key_frame
from vtok.visual_head.cells import Cells, FSQCells

Kind = Literal["spatial", "motion"]


class TokenCounts(NamedTuple):
    """Tokens of one clip, by kind."""

    spatial: int
    motion: int


class Place(NamedTuple):
    """The place of a token.

    Attributes:
        kind: Its kind.
        cell: Its cell, 0 ... ``Tokeniser.num_cells`` - 1: in the grid of a frame, row by row. ``None`` if it is not a
            single cell.
        time: Its step in time. ``None`` for the key frame.
    """

    kind: Kind
    cell: int | None = None
    time: int | None = None


class VisualFeatures(NamedTuple):
    """Frozen, pooled features of B clips.

    Attributes:
        spatial: (B, S, d_v), pooled cells. Zero beyond a clip's own count.
        motion: (B, M, residual_dim), one per step in time. Zero beyond a clip's own count.
        motion_counts: The number of motion tokens of each clip, at most M.
        spatial_counts: The number of spatial tokens of each clip, at most S. ``None``: every clip has all S.
        key_steps: The steps of each clip whose frames are further key frames. ``None``: there are none, or the features
            were stored.
    """

    spatial: Tensor
    motion: Tensor
    motion_counts: list[int]
    spatial_counts: list[int] | None = None
    key_steps: list[list[int]] | None = None

    def of(self, kind: str) -> tuple[Tensor, list[int]]:
        """Returns the features of one kind, ``spatial`` or ``motion``, and their number in each clip."""
        if kind == "motion":
            return self.motion, self.motion_counts
        return self.spatial, self.spatial_counts or [self.spatial.shape[1]] * len(self.motion_counts)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "VisualFeatures":
        """Returns the features on ``device``."""
        spatial, motion = (x.to(device, non_blocking=non_blocking) for x in (self.spatial, self.motion))
        return self._replace(spatial=spatial, motion=motion)

    @property
    def token_counts(self) -> list[int]:
        """The tokens of each clip."""
        return [sum(counts) for counts in zip(self.of("spatial")[1], self.motion_counts)]

    @property
    def gaps(self) -> list[int]:
        """The number of each clip's places without a token, between its spatial and its motion tokens."""
        return [self.spatial.shape[1] - count for count in self.of("spatial")[1]]

    def without_gap(self, tokens: Tensor) -> Tensor:
        """Leaves out those of one clip's tokens (1, L, dim) that are padding between spatial and motion tokens."""
        (gap,), places = self.gaps, self.spatial.shape[1]
        return torch.cat([tokens[:, : places - gap], tokens[:, places:]], dim=1) if gap else tokens


class Tokeniser(nn.Module):
    """Turns frames into tokens. The feature extractor ``F`` is frozen; the encoders train.

    Args:
        config: The settings.
        feature_extractor: ``F``. Built from ``config`` if omitted.

    Attributes:
        feature_scale: Mean and deviation of the frozen features, for each kind of token of this strategy, in the order
            of the tokens. 0 and 1 until they are measured.
    """

    feature_scale: ModuleTable[FeatureScale]

    def __init__(self, config: VTokConfig, feature_extractor: FeatureExtractor | None = None):
        super().__init__()
        self.config = config
        self.feature_extractor = feature_extractor or build_feature_extractor(config)

    @property
    def feature_dims(self) -> dict[str, int]:
        """Width of the frozen features of each kind."""
        return {kind: scale.mean.numel() for kind, scale in self.feature_scale.items()}

    @property
    def num_cells(self) -> int:
        """Number of different cells that tokens may have."""
        return self.config.num_spatial_tokens

    @property
    def spatial_places(self) -> int:
        """Indices of spatial tokens. Motion tokens follow. A clip may have fewer spatial tokens, never more."""
        return self.counts(1).spatial

    @property
    def steps_per_second(self) -> float:
        """Steps in time per second of video. 0 if the strategy has the same number for all clips."""
        return self.config.motion_rate

    @property
    def cells(self) -> dict[str, Cells]:
        """The quantisers of the kinds whose frozen features have one of their own, for the visual head ``codes``."""
        levels = self.feature_extractor.levels
        return {kind: FSQCells(levels) for kind in self.feature_scale} if levels else {}

    @property
    def vector_shape(self) -> tuple[int, int, int] | None:
        """Shape (2, height, width) of the motion vectors of a frame, if the strategy reads them."""
        return None

    @property
    def vectors_of(self) -> Callable[[Tensor], Tensor] | None:
        """Computes the motion vectors (T - 1, 2, height, width) of a clip's frames (T, 3, H, W) ``uint8``.

        It runs on the CPU, in loader processes. ``None`` if the strategy does not read them.
        """
        return None

    def counts(self, num_frames: int, fps: float | None = None) -> TokenCounts:
        """Returns the tokens of a clip of ``num_frames`` frames at ``fps`` (``config.fps`` if omitted).

        A strategy whose number depends on what the clip shows returns the least: that of a sampled video.
        """
        raise NotImplementedError

    def place(self, index: int) -> Place:
        """Returns the place of token ``index``, which is the same in every clip."""
        raise NotImplementedError

    def most(self, num_frames: int, fps: float | None = None) -> TokenCounts:
        """Returns the most tokens that a clip of ``num_frames`` frames can have. Arguments as in :meth:`counts`."""
        return TokenCounts(self.spatial_places, self.counts(num_frames, fps).motion)

    def sampled(self, num_tokens: int) -> list[int]:
        """Returns the indices of a sampled video's tokens, in the order in which they are sampled."""
        return list(range(num_tokens))

    def time_frames(self, num_frames: int, fps: float | None = None, key_frame_idx: int | None = None) -> list[int]:
        """Returns the frame of each step in time, ascending."""
        raise NotImplementedError

    def features(
        self,
        frames: Tensor,
        frame_counts: list[int] | None = None,
        fps: float | None = None,
        key_frame_idx: int | Literal["detect"] | None = None,
        vectors: Tensor | None = None,
    ) -> VisualFeatures:
        """Extracts the frozen features of the frames that have a token. Other frames are not encoded.

        Args:
            frames: (B, T, 3, H, W), ``uint8``, or floating point and normalised for the backbone.
            frame_counts: The real frames of each clip, at most T (default: all T). The rest is padding.
            fps: Frames per second of ``frames``. ``config.fps`` if omitted.
            key_frame_idx: Overrides ``config.key_frame_idx``: an index or ``detect``. A shorter clip uses its last
                frame. Strategies without a key frame ignore it.
            vectors: (B, T - 1, ...), what ``vectors_of`` gives for each clip. Computed if omitted. Other strategies
                ignore it.

        Raises:
            ConfigError: ``key_frame_idx`` is not a frame of the video, or the token rate exceeds ``fps``.
        """
        raise NotImplementedError

    def encode_kind(self, kind: str, features: Tensor) -> Tensor:
        """Encodes frozen features of one kind: (..., feature_dims[kind]) to tokens (..., token_dim)."""
        raise NotImplementedError

    def encode(self, features: VisualFeatures) -> Tensor:
        """Encodes features to tokens (B, S + M, token_dim), spatial first. Beyond a kind's own count is padding."""
        return torch.cat([self.encode_kind(kind, features.of(kind)[0]) for kind in self.feature_scale], dim=1)

    def forward(
        self,
        frames: Tensor,
        frame_counts: list[int] | None = None,
        fps: float | None = None,
        key_frame_idx: int | Literal["detect"] | None = None,
    ) -> Tensor:
        """Turns frames into tokens (B, S + M, token_dim). Arguments as in :meth:`features`."""
        return self.encode(self.features(frames, frame_counts, fps, key_frame_idx))

    def grids(self, frames: Tensor, clips: Tensor, indices: Tensor) -> Tensor:
        """Runs ``F`` on n frames, each with the frames before it where the backbone takes several at once.

        The first frame of a clip replaces frames before the clip's beginning.

        Args:
            frames: (B, T, 3, H, W).
            clips, indices: (n,), the clip and the index of each of the n frames.

        Returns:
            Features (n, h, w, d_v).
        """
        before = reversed(range(self.feature_extractor.temporal_patch))
        return self.feature_extractor(*(frames[clips, (indices - back).clamp_min(0)] for back in before))

    def key_frames(
        self, frames: Tensor, frame_counts: list[int], key_frame_idx: int | Literal["detect"] | None = None
    ) -> list[int]:
        """Returns the key frame of each clip. Arguments and errors as in :meth:`features`."""
        key = self.config.key_frame_idx if key_frame_idx is None else key_frame_idx
        if key != 0 and self.feature_extractor.temporal_patch > 1:
            raise ConfigError(
                f"the backbone {self.config.backbone} takes the first frame as key frame: leave key_frame_idx at 0"
            )
        if isinstance(key, str):
            return [detect_key_frame(clip[:count]) for clip, count in zip(frames, frame_counts)]
        require_key_frame(key, frames.shape[1])
        return [min(key, count - 1) for count in frame_counts]
