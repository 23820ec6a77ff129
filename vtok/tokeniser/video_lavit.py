"""``video-lavit``: S spatial tokens of the first frame, then codes of the motion vectors behind it (Jin et al., 2024).

The motion vectors of frames 1, 2, ... are cut into clips of 24, the last one filled up with zeros. The frozen codec
turns a clip into codes, each of one cell and one step in time. Steps that begin behind the video's end have no token.
An MLP like ``g_phi`` maps a code's vector to a token; it trains. Video-LaViT itself has a key frame for every clip.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from vtok.config import ConfigError, VTokConfig
from vtok.feature_extractor import FeatureExtractor
from vtok.motion_codec import MotionTokens, motion_vectors
from vtok.motion_codec.folder import stored_codebook
from vtok.motion_encoder import MotionEncoder, StepEncoder
from vtok.tokeniser.base import VisualFeatures
from vtok.tokeniser.grid_steps import GridStepsTokeniser
from vtok.visual_head.cells import Cells, CodebookCells


class VideoLavitTokeniser(GridStepsTokeniser):
    """Turns frames into S + M tokens, M of which are codes."""

    def __init__(self, config: VTokConfig, feature_extractor: FeatureExtractor | None = None):
        super().__init__(config, feature_extractor)
        self.codec_config = self.codec.config
        self.cells_per_step, self.frames_per_step = self.codec_config.cells, self.codec_config.stride[0]

    @property
    def codec(self) -> MotionTokens:
        codec = self.feature_extractor.motion_codec
        if codec is None:
            raise ConfigError("tokeniser.strategy video-lavit needs a feature extractor with a motion codec")
        return codec

    def build_motion_encoder(self, width: int) -> StepEncoder:
        config = self.config
        return MotionEncoder(1, self.codec.config.code_dim, config.token_dim, config.motion_hidden_dim)

    @property
    def cells(self) -> dict[str, Cells]:
        if self.config.codec is None:
            vectors = self.codec.codebook.weight.detach()
        else:
            vectors = stored_codebook(self.config.codec).to(torch.empty(0).device)  # "meta" in plans
        return {"motion": CodebookCells(vectors)}

    @property
    def vector_shape(self) -> tuple[int, int, int]:
        return 2, self.codec_config.height, self.codec_config.width

    @property
    def vectors_of(self) -> Callable[[Tensor], Tensor]:
        return partial(motion_vectors, height=self.codec_config.height, width=self.codec_config.width)

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
        batch, length = frames.shape[:2]
        frame_counts = frame_counts or [length] * batch
        kept = [self.own_frames(count, fps) for count in frame_counts]
        if vectors is None:
            moved = [self.vectors_of(clip[own]) for clip, own in zip(frames, kept)]
        else:
            moved = [clip[: len(own) - 1] for clip, own in zip(vectors, kept)]
        key_features = self.feature_extractor(frames[:, 0])
        motion, counts = self.codes(moved, frames.device)
        return VisualFeatures(self.spatial_encoder.pool(key_features), motion.to(key_features.dtype), counts)

    def codes(self, vectors: list[Tensor], device: torch.device) -> tuple[Tensor, list[int]]:
        """Returns the vectors of the codes of B videos (B, M, code_dim), and how many each has.

        The codec runs once, also for videos of one frame, since ranks have to run the same modules.

        Args:
            vectors: The motion vectors (n, 2, height, width) of each video.
            device: Device of the result.
        """
        config = self.codec_config
        cut = [torch.split(clip, config.frames) if len(clip) else (clip,) for clip in vectors]
        clips = torch.zeros(sum(map(len, cut)), config.frames, 2, config.height, config.width, device=device)
        for clip, own in zip(clips, sum(cut, ())):
            clip[: len(own)] = own
        found = self.codec(clips).flatten(1, 2).split([len(own) for own in cut])
        counts = [config.cells * -(-len(clip) // self.frames_per_step) for clip in vectors]
        rows = [own.flatten(0, 1)[:count] for own, count in zip(found, counts)]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), counts
