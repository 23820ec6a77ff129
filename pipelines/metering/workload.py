"""What one micro-batch is made of: clips of the configured length with a caption of typical length."""

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
from vtok.rows.batch import Batch
from vtok.rows.prompts import CAPTION_INSTRUCTIONS
from vtok.rows.text import RowText, TextEncoder
from vtok.tokeniser import TokenCounts
from vtok.video_decoder import decoder_kind

# Tokens of the chat template around a video and an instruction about it, for plans made without the tokenizer: of
# LLaMA-3, and of Qwen2.5 with its system prompt.
CHAT_TEMPLATES = {"llava-next": (5, 15), "qwen2.5-vl": (15, 10)}


class Lengths(NamedTuple):
    """What a framework asks its tokenizers for in a training step."""

    crop_start: int


@dataclass
class Workload:
    """A micro-batch of B full-length clips.

    Attributes:
        texts: token ids of each sample's rows; only their number matters.
        crop_start: rows of the prompt that the decoder never sees.
        frames, video: the tokeniser's and the decoder's view, if there is a decoder.
        tokens: of a clip.
    """

    texts: list[RowText]
    crop_start: int
    frames: View
    video: View | None
    tokens: TokenCounts

    @property
    def size(self) -> int:
        """B."""
        return len(self.texts)

    @property
    def bytes(self) -> int:
        """Of the micro-batch's pixels."""
        views = [view for view in (self.frames, self.video) if view]
        return self.size * sum(3 * view.num_frames * view.height * view.width for view in views)

    def batch(self, pixels: Callable[..., Tensor]) -> Batch:
        """The micro-batch.

        Args:
            pixels: makes the ``uint8`` values of a video of the given shape.
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
        )


def typical_workload(
    config: RunConfig,
    framework: VTokFramework,
    size: int,
    caption_tokens: int = CAPTION_TOKENS,
    text: TextEncoder | None = None,
) -> Workload:
    """A micro-batch of ``size`` full-length clips, whose captions differ in length by a token, as real ones do.

    Args:
        framework: gives the backbone's image size; never run.
        caption_tokens: of the longest caption, in the understanding and in the generation row.
        text: the run's tokenizers, if at hand: they give the exact length of the templates.
    """
    frames, video = views_of(config, framework.tokeniser.feature_extractor.image_size)
    lengths = [max(1, caption_tokens - clip % 2) for clip in range(size)]
    rows, crops = zip(*(typical_text(length, config.model, text) for length in lengths))
    return Workload(list(rows), crops[0], frames, video, framework.tokeniser.counts(frames.num_frames))


def typical_text(caption_tokens: int, model: ModelConfig, text: TextEncoder | None) -> tuple[RowText, int]:
    """Rows of a caption of so many tokens, all of them token 0, and the prompt's crop."""
    if text:
        before, after = map(len, text.question(CAPTION_INSTRUCTIONS[0]))
        template, crop_start = len(text.prompt("")), text.crop_start
    else:
        before, after = CHAT_TEMPLATES[model.mllm.kind]
        crop_start = DEFAULT_PROMPT_TEMPLATE["crop_start"]
        template = crop_start + 1  # the end token behind the caption
    prompt = min(template + caption_tokens, crop_start + model.decoder.max_prompt_tokens)
    lengths = (before, after, caption_tokens + 1, prompt, decoder_kind(model.decoder).caption_length(caption_tokens))
    return RowText(*([0] * length for length in lengths), captioned=True), crop_start
