"""What a model says to a question about a video: how likely it finds each option, and which letter it writes.

Each question is asked three times: about the video, about its first frame, repeated, and without any video. What the
last two answer right needed no video.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipelines.evaluation.options import LETTERS, parse_letter
from pipelines.evaluation.understanding.question import Question, asked_text
from vtok.framework import VTokFramework
from vtok.understanding import answer_losses, cut_into_parts, generated_answer, video_embeddings

VIDEO, FIRST_FRAME, BLIND = "video", "first_frame", "blind"
REPLY_TOKENS = 16  # the longest reply


class Sight(NamedTuple):
    """What the model sees.

    Attributes:
        visual: Embeddings of visual tokens, (1, L, d).
        frame_counts: Frames of each part of the video.
    """

    visual: Tensor
    frame_counts: list[int]


@torch.no_grad()
def sight(framework: VTokFramework, frames: Tensor, key_frame_every: float | None) -> Sight:
    """Embeds a video.

    Args:
        framework: The model.
        frames: (T, 3, h, w), ``uint8``, at the configuration's frames per second.
        key_frame_every: Seconds between key frames; ``None`` for one key frame.
    """
    counts = [len(part) for part in cut_into_parts(framework, frames, None, key_frame_every)]
    return Sight(video_embeddings(framework, frames, key_frame_every=key_frame_every), counts)


@torch.no_grad()
def no_sight(framework: VTokFramework) -> Sight:
    """Returns what a model sees that is shown no video."""
    nothing = torch.empty(0, dtype=torch.long, device=framework.mllm.device)
    return Sight(framework.mllm.embed(nothing)[None], [])


def sights(framework: VTokFramework, frames: Tensor, key_frame_every: float | None) -> dict[str, Sight]:
    """Embeds a video, its first frame repeated, and nothing. Arguments as in :func:`sight`."""
    shown = {VIDEO: frames, FIRST_FRAME: frames[:1].expand_as(frames)}
    return {name: sight(framework, each, key_frame_every) for name, each in shown.items()} | {
        BLIND: no_sight(framework)
    }


def said(framework: VTokFramework, sight: Sight, question: Question, subtitles: list[str], show_options: bool) -> dict:
    """Asks a question about what the model sees.

    Returns:
        ``nats``, -log p of each option with its end token; ``tokens``, how many tokens that are; ``reply``, the text
        that the model writes, or ``None`` if the options are not shown: it could name no letter.
    """
    asked = asked_text(question, subtitles, show_options)
    losses = answer_losses(framework, sight.visual, sight.frame_counts, asked, list(question.options))
    reply = generated_answer(framework, sight.visual, sight.frame_counts, asked, REPLY_TOKENS) if show_options else None
    return {"nats": [float(one.sum()) for one in losses], "tokens": [len(one) for one in losses], "reply": reply}


def likeliest(answer: dict) -> str:
    """Returns the letter of the option with the largest likelihood per token: short ones do not win by length."""
    means = [nats / tokens for nats, tokens in zip(answer["nats"], answer["tokens"])]
    return LETTERS[means.index(min(means))]


def written(answer: dict, question: Question) -> str | None:
    """Returns the letter that the model's reply names, or ``None`` if it names none or several."""
    return parse_letter(answer["reply"], question.options)
