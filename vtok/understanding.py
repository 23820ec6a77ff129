"""What a framework says about videos: answers to questions, and the likelihood of given answers."""

import math
from typing import Literal

import torch
from torch import Tensor

from vtok.framework import VTokFramework
from vtok.mllm.mrope import row_positions
from vtok.sharded import needs_all_ranks, require_alike
from vtok.tokeniser import VisualFeatures


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
    """Answer a question about a video, greedily.

    Under ZeRO-3 all ranks call this together, each with a video and a question of its own if need be: one whose
    answer is complete goes on until all are.

    Args:
        frames: (T, 3, h, w) ``uint8`` at ``fps`` (default: the configuration's); or the video's frozen features.
        key_frame_idx: an index or ``detect``; the configuration's if omitted.
        key_frame_every: seconds; a longer video is cut into parts of this length, each with a key frame of its own
            and positions that begin anew: S tokens a key frame and one a later step, as in training.
        num_frames: of a video that is given by its features; only a language model with mRoPE asks for it.

    Raises:
        ConfigError: under ZeRO-3, the ranks' videos have not equally many parts.
    """
    if isinstance(frames, VisualFeatures):
        counts = [num_frames]
        visual = framework.projection(framework.tokeniser.encode(framework.in_model_dtype(frames)))
    else:
        counts = [len(part) for part in cut_into_parts(framework, frames, fps, key_frame_every)]
        require_alike(framework, parts_of_a_video=len(counts))
        visual = video_embeddings(framework, frames, fps, key_frame_idx, key_frame_every)
    embeddings = question_embeddings(framework, visual, question)
    positions = question_positions(framework, question, counts, fps)
    ids = framework.mllm.causal_lm.generate(
        inputs_embeds=embeddings,
        attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device),
        **({} if positions is None else {"position_ids": positions}),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        synced_gpus=needs_all_ranks(framework.mllm),
        eos_token_id=framework.text.tokenizer.eos_token_id,
        pad_token_id=framework.text.tokenizer.eos_token_id,
    )
    return framework.text.tokenizer.decode(ids[0], skip_special_tokens=True).strip()


@torch.no_grad()
def answer_losses(
    framework: VTokFramework, visual: Tensor, num_frames: int, question: str, answers: list[str]
) -> list[Tensor]:
    """-log p of each token of each answer to a question about a video, end tokens included, in fp32.

    Args:
        visual: (1, L, d), of :func:`video_embeddings`.
        num_frames: that these show, at the configuration's frames per second.
    """
    question_row = question_embeddings(framework, visual, question)  # runs once, all answers go on from it
    ids = [torch.tensor(framework.text.answer(answer), device=question_row.device) for answer in answers]
    rows = [question_row, *(framework.mllm.embed(own)[None] for own in ids)]
    lengths = [row.shape[1] for row in rows]
    positions = None
    if framework.mllm.positions_per_second is not None:
        longest = question_positions(framework, question, [num_frames], answer=max(lengths[1:]))
        beginning, behind = longest.tensor_split([lengths[0]], dim=-1)
        positions = torch.cat([beginning, *(behind[..., :length] for length in lengths[1:])], -1)
    states = framework.mllm(torch.cat(rows, 1), lengths, shared_row=0, positions=positions).last[0]
    question_states, *answered = states.split(lengths)
    predicting = [torch.cat([question_states[-1:], row[:-1]]) for row in answered]
    return list(framework.mllm.lm_head(torch.cat(predicting), torch.cat(ids)).split(lengths[1:]))


def question_embeddings(framework: VTokFramework, visual: Tensor, question: str) -> Tensor:
    """A question about the visual tokens (1, L, d), in the chat template, up to where the answer begins."""
    before, after = (torch.tensor(ids, device=visual.device) for ids in framework.text.question(question))
    return torch.cat([framework.mllm.embed(before)[None], visual, framework.mllm.embed(after)[None]], 1)


def question_positions(
    framework: VTokFramework, question: str, frame_counts: list[int], fps: float | None = None, answer: int = 0
) -> Tensor | None:
    """Positions (3, 1, L) of :func:`question_embeddings`, for a language model with mRoPE; ``None`` for any other.

    Args:
        frame_counts: frames of the parts of the video, each of which has a key frame of its own.
        answer: tokens of an answer behind the question, which get positions too.
    """
    if framework.mllm.positions_per_second is None:
        return None
    videos = [
        framework.clip_positions(sum(framework.tokeniser.counts(count, fps)), count, fps) for count in frame_counts
    ]
    before, after = map(len, framework.text.question(question))
    return row_positions(before, videos, after + answer)[:, None].to(framework.mllm.embed.weight.device)


def video_embeddings(
    framework: VTokFramework,
    frames: Tensor,
    fps: float | None = None,
    key_frame_idx: int | Literal["detect"] | None = None,
    key_frame_every: float | None = None,
) -> Tensor:
    """A video's visual tokens as the language model reads them, (1, L, d); arguments as :func:`understand`."""
    key = framework.config.tokeniser.key_frame_idx if key_frame_idx is None else key_frame_idx
    parts = cut_into_parts(framework, frames, fps, key_frame_every)
    keys = [key] + [key if key == "detect" else min(key, len(part) - 1) for part in parts[1:]]
    tokens = [framework.tokeniser(part[None], fps=fps, key_frame_idx=k) for part, k in zip(parts, keys)]
    return torch.cat([framework.projection(each) for each in tokens], dim=1)


def cut_into_parts(
    framework: VTokFramework, frames: Tensor, fps: float | None, key_frame_every: float | None
) -> tuple[Tensor, ...]:
    """A video's frames, cut at every so many seconds; arguments as :func:`understand`."""
    seconds, fps = key_frame_every or math.inf, fps or framework.config.tokeniser.fps
    return frames.split(max(1, round(min(seconds * fps, len(frames)))))
