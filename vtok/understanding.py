"""Answers questions about videos, and computes the likelihood of given answers."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor
from transformers import GenerationMixin

from vtok.framework import VTokFramework
from vtok.mllm.mrope import row_positions
from vtok.sharded import needs_all_ranks, require_alike
from vtok.tokeniser import VisualFeatures
from vtok.trained_length import warn_if_longer


@torch.no_grad()
def understand(
    framework: VTokFramework,
    frames: Tensor | VisualFeatures,
    question: str,
    max_new_tokens: int = 128,
    fps: float | None = None,
    key_frame_idx: int | Literal["detect"] | None = None,
    key_frame_every: float | None = None,
    num_frames: int | None = None,
) -> str:
    """Answers a question about a video, greedily.

    Under ZeRO-3 all ranks call this together. Each may have its own video and question. A rank whose answer is complete
    keeps running until all are.

    Args:
        framework: The model.
        frames: (T, 3, h, w), ``uint8``, at ``fps``; or the video's frozen features.
        question: The question.
        max_new_tokens: Longest answer.
        fps: Frames per second. The configuration's if omitted.
        key_frame_idx: An index or ``detect``. The configuration's if omitted.
        key_frame_every: Seconds. A longer video is cut into parts of this length. Each part has its own key frame, and
            its positions start at 0, as in training.
        num_frames: Frames of a video that is given by its features. Only a language model with mRoPE needs it.

    Raises:
        ConfigError: Under ZeRO-3, the ranks' videos differ in their number of parts.
    """
    if isinstance(frames, VisualFeatures):
        if num_frames is None and framework.mllm.positions_per_second is not None:
            raise ValueError("a language model with mRoPE needs num_frames with a video that is given by its features")
        counts = [] if num_frames is None else [num_frames]
        visual = framework.embedded(framework.restored(frames))
    else:
        counts = [len(part) for part in cut_into_parts(framework, frames, fps, key_frame_every)]
        require_alike(framework, parts_of_a_video=len(counts))
        visual = video_embeddings(framework, frames, fps, key_frame_idx, key_frame_every)
    return generated_answer(framework, visual, counts, question, max_new_tokens, fps)


@torch.no_grad()
def generated_answer(
    framework: VTokFramework,
    visual: Tensor,
    frame_counts: list[int],
    question: str,
    max_new_tokens: int = 128,
    fps: float | None = None,
) -> str:
    """Generates an answer to a question about embedded visual tokens, greedily.

    Args:
        framework: The model.
        visual: (1, L, d), from :func:`video_embeddings`. With L = 0 the model sees the question alone.
        frame_counts: Frames of each part of the video.
        question: The question.
        max_new_tokens: Longest answer.
        fps: Frames per second. The configuration's if omitted.
    """
    embeddings = question_embeddings(framework, visual, question)
    positions = question_positions(framework, question, frame_counts, fps)
    return _answer(framework, embeddings, positions, max_new_tokens)


@torch.no_grad()
def understand_several(
    framework: VTokFramework,
    media: Sequence[Tensor],
    question: str,
    at: Sequence[int] | None = None,
    max_new_tokens: int = 128,
) -> str:
    """Answers a question about several videos and images, greedily. Under ZeRO-3 all ranks call this together.

    Args:
        framework: The model.
        media: (T, 3, h, w) ``uint8`` each, at the configuration's frames per second; an image is one frame.
        question: The question.
        at: The number of characters of the question before each medium, ascending. All stand before it if omitted.
        max_new_tokens: Longest answer.

    Raises:
        ConfigError: Under ZeRO-3, the ranks have different numbers of media.
    """
    require_alike(framework, videos_and_images=len(media))
    text, mllm = framework.text, framework.mllm
    blocks = [video_embeddings(framework, frames) for frames in media]
    head, tail = text.template(1, visual=False)
    ids = text.asked(head, tail, question, list(enumerate(at or [0] * len(media))))
    parts = [list(own) for _, own in groupby(ids, key=lambda token: min(token, 0))]
    embeddings = [
        blocks[-1 - part[0]] if part[0] < 0 else mllm.embed(torch.tensor(part, device=mllm.device))[None]
        for part in parts
    ]
    positions = None
    if mllm.positions_per_second is not None:
        videos = [framework.clip_positions(block.shape[1], len(frames)) for block, frames in zip(blocks, media)]
        row = row_positions(videos[-1 - part[0]] if part[0] < 0 else len(part) for part in parts)
        positions = row[:, None].to(mllm.device)
    return _answer(framework, torch.cat(embeddings, 1), positions, max_new_tokens)


def _answer(framework: VTokFramework, embeddings: Tensor, positions: Tensor | None, max_new_tokens: int) -> str:
    """Generates an answer to an embedded question (1, L, d), greedily."""
    causal_lm = framework.mllm.causal_lm
    assert isinstance(causal_lm, GenerationMixin)  # as all of transformers' ...ForCausalLM are
    ids = causal_lm.generate(
        inputs_embeds=embeddings,
        attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device),
        **({} if positions is None else {"position_ids": positions}),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        synced_gpus=needs_all_ranks(framework.mllm),
        eos_token_id=framework.text.end_ids,
        pad_token_id=framework.text.tokenizer.eos_token_id,
    )
    return str(framework.text.tokenizer.decode(ids[0], skip_special_tokens=True)).strip()


@torch.no_grad()
def answer_losses(
    framework: VTokFramework, visual: Tensor, frame_counts: list[int], question: str, answers: list[str]
) -> list[Tensor]:
    """Computes -log p of each token of each answer to a question about a video, including end tokens, in fp32.

    Args:
        framework: The model.
        visual: (1, L, d), from :func:`video_embeddings`. With L = 0 the model sees the question alone.
        frame_counts: Frames of each part of the video, at the configuration's frames per second.
        question: The question.
        answers: The answers.

    Returns:
        For each answer, (its tokens,).
    """
    question_row = question_embeddings(framework, visual, question)  # runs once, as the prefix that the answers share
    ids = [torch.tensor(framework.text.answer(answer), device=question_row.device) for answer in answers]
    rows = [question_row, *(framework.mllm.embed(own)[None] for own in ids)]
    lengths = [row.shape[1] for row in rows]
    positions = question_positions(framework, question, frame_counts, answer=max(lengths[1:]))
    if positions is not None:
        beginning, behind = positions.tensor_split([lengths[0]], dim=-1)
        positions = torch.cat([beginning, *(behind[..., :length] for length in lengths[1:])], -1)
    states = framework.mllm(torch.cat(rows, 1), lengths, shared_row=0, positions=positions).last[0]
    question_states, *answered = states.split(lengths)
    predicting = [torch.cat([question_states[-1:], row[:-1]]) for row in answered]
    return list(framework.mllm.lm_head(torch.cat(predicting), torch.cat(ids)).split(lengths[1:]))


def question_embeddings(framework: VTokFramework, visual: Tensor, question: str) -> Tensor:
    """Embeds a question about visual tokens (1, L, d), in the chat template, up to where the answer begins."""
    before, after = (torch.tensor(ids, device=visual.device) for ids in framework.text.question(question))
    return torch.cat([framework.mllm.embed(before)[None], visual, framework.mllm.embed(after)[None]], 1)


def question_positions(
    framework: VTokFramework, question: str, frame_counts: list[int], fps: float | None = None, answer: int = 0
) -> Tensor | None:
    """Returns the positions (3, 1, L) of :func:`question_embeddings` for a language model with mRoPE, else ``None``.

    Args:
        framework: The model.
        question: The question.
        frame_counts: Frames of each part of the video.
        fps: Frames per second. The configuration's if omitted.
        answer: Tokens of an answer after the question. They get positions too.
    """
    if framework.mllm.positions_per_second is None:
        return None
    videos = [
        framework.clip_positions(sum(framework.tokeniser.counts(count, fps)), count, fps) for count in frame_counts
    ]
    before, after = map(len, framework.text.question(question))
    return row_positions([before, *videos, after + answer])[:, None].to(framework.mllm.device)


def video_embeddings(
    framework: VTokFramework,
    frames: Tensor,
    fps: float | None = None,
    key_frame_idx: int | Literal["detect"] | None = None,
    key_frame_every: float | None = None,
) -> Tensor:
    """Embeds a video's visual tokens for the language model: (1, L, d). Arguments as in :func:`understand`."""
    key = framework.config.tokeniser.key_frame_idx if key_frame_idx is None else key_frame_idx
    parts = cut_into_parts(framework, frames, fps, key_frame_every)
    keys = [key] + [key if isinstance(key, str) else min(key, len(part) - 1) for part in parts[1:]]
    features = [framework.tokeniser.features(part[None], fps=fps, key_frame_idx=k) for part, k in zip(parts, keys)]
    longest = max(each.spatial.shape[1] + each.motion.shape[1] for each in features)
    warn_if_longer(framework, range(longest), "pass key_frame_every={seconds:g}")
    return torch.cat([framework.embedded(each) for each in features], dim=1)


def cut_into_parts(
    framework: VTokFramework, frames: Tensor, fps: float | None, key_frame_every: float | None
) -> tuple[Tensor, ...]:
    """Cuts a video's frames into parts of ``key_frame_every`` seconds. Arguments as in :func:`understand`."""
    seconds, fps = key_frame_every or math.inf, fps or framework.config.tokeniser.fps
    return frames.split(max(1, round(min(seconds * fps, len(frames)))))
