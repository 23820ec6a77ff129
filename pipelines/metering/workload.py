"""A typical micro-batch: clips of the configured length with captions of typical length."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import Tensor

from data_tools.video.views import View
from pipelines.config import CAPTION_TOKENS, RunConfig
from pipelines.views import views_of
from vtok.config import ModelConfig
from vtok.framework import VTokFramework
from vtok.mllm import published
from vtok.rows.batch import Batch
from vtok.rows.prompts import CAPTION_INSTRUCTIONS
from vtok.rows.text import RowText, TextEncoder, mark
from vtok.tokeniser import TokenCounts
from vtok.video_decoder import decoder_kind


class Lengths(NamedTuple):
    """The part of a framework's ``text`` that a training step uses."""

    crop_start: int


@dataclass
class Workload:
    """A micro-batch of B full-length clips.

    Attributes:
        texts: Token ids of each sample's rows. Only their number matters.
        crop_start: Tokens at the start of the prompt whose states do not go to the decoder.
        frames, video: The tokeniser's view, and the decoder's if there is one.
        tokens: Visual tokens of a clip.
        vectors: Shape of a clip's motion vectors, if the strategy reads them.
    """

    texts: list[RowText]
    crop_start: int
    frames: View
    video: View | None
    tokens: TokenCounts
    vectors: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """B."""
        return len(self.texts)

    @property
    def bytes(self) -> int:
        """Bytes of the micro-batch's pixels."""
        views = [view for view in (self.frames, self.video) if view]
        return self.size * sum(3 * view.num_frames * view.height * view.width for view in views)

    def batch(self, pixels: Callable[..., Tensor]) -> Batch:
        """Makes the micro-batch.

        Args:
            pixels: Makes the ``uint8`` values of a video of the given shape.
        """

        def clips(view: View | None) -> Tensor | None:
            return view and pixels((self.size, view.num_frames, 3, view.height, view.width), dtype=torch.uint8)

        return Batch(
            frames=clips(self.frames),
            frame_counts=[self.frames.num_frames] * self.size,
            video=clips(self.video),
            video_counts=[self.video.num_frames if self.video else 0] * self.size,
            texts=self.texts,
            decoder_seeds=list(range(self.size)),
            head_seeds=list(range(self.size)),
            keys=["clip"] * self.size,
            vectors=self.vectors and pixels((self.size, *self.vectors), dtype=torch.uint8).float(),
        )


def typical_workload(
    config: RunConfig,
    framework: VTokFramework,
    size: int,
    caption_tokens: int = CAPTION_TOKENS,
    text: TextEncoder | None = None,
) -> Workload:
    """Describes a micro-batch of ``size`` full-length clips. Their captions differ in length by a token.

    Args:
        config: The run's configuration.
        framework: Gives the backbone's image size and the token counts. It does not run.
        size: B.
        caption_tokens: Tokens of the longest caption.
        text: The run's tokenizers, which give the exact length of the templates. Published lengths if omitted.
    """
    frames, video = views_of(config, framework.tokeniser.feature_extractor.image_size)
    lengths = [max(1, caption_tokens - clip % 2) for clip in range(size)]
    rows, crops = zip(*(typical_text(length, config.model, text) for length in lengths))
    shape = framework.tokeniser.vector_shape
    vectors = shape and (frames.num_frames - 1, *shape)
    return Workload(list(rows), crops[0], frames, video, framework.tokeniser.most(frames.num_frames), vectors)


def typical_text(caption_tokens: int, model: ModelConfig, text: TextEncoder | None) -> tuple[RowText, int]:
    """Makes the rows of a caption of ``caption_tokens`` tokens, with token 0 everywhere. Also returns the crop."""
    if text:
        before, after = map(len, text.question(CAPTION_INSTRUCTIONS[0]))
        template, crop_start = len(text.prompt("")), text.crop_start
    else:
        before, after = published(model.mllm).template_lengths
        crop_start = DEFAULT_PROMPT_TEMPLATE["crop_start"]
        template = crop_start + 1  # with the end token
    prompt = min(template + caption_tokens, crop_start + model.decoder.max_prompt_tokens)
    lengths = (caption_tokens + 1, prompt, decoder_kind(model.decoder).caption_length(caption_tokens))
    question = [*[0] * before, mark(0), *[0] * after]
    return RowText(question, *([0] * length for length in lengths), predicts=True, decodes=True), crop_start
