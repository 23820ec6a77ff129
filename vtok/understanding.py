"""What a framework says about videos: answers to questions, and how likely it finds given ones."""

import math
from typing import Literal

import torch
from torch import Tensor

from vtok.mllm.mrope import row_positions
from vtok.sharded import needs_all_ranks, require_alike
from vtok.tokeniser import VisualFeatures


class UnderstandingMixin:
    """Of :class:`vtok.framework.VTokFramework`, which has the parts: video -> visual tokens -> question -> answer."""

    @torch.no_grad()
    def understand(
        self,
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
            visual = self.projection(self.tokeniser.encode(self.in_model_dtype(frames)))
        else:
            counts = [len(part) for part in self.parts(frames, fps, key_frame_every)]
            require_alike(self, parts_of_a_video=len(counts))
            visual = self.video_embeddings(frames, fps, key_frame_idx, key_frame_every)
        embeddings = self.asked(visual, question)
        positions = self.asked_positions(question, counts, fps)
        ids = self.mllm.causal_lm.generate(
            inputs_embeds=embeddings,
            attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device),
            **({} if positions is None else {"position_ids": positions}),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            synced_gpus=needs_all_ranks(self.mllm),
            eos_token_id=self.text.tokenizer.eos_token_id,
            pad_token_id=self.text.tokenizer.eos_token_id,
        )
        return self.text.tokenizer.decode(ids[0], skip_special_tokens=True).strip()

    @torch.no_grad()
    def answer_losses(self, visual: Tensor, num_frames: int, question: str, answers: list[str]) -> list[Tensor]:
        """-log p of each token of each answer to a question about a video, end tokens included, in fp32.

        Args:
            visual: (1, L, d), of :meth:`video_embeddings`.
            num_frames: that these show, at the configuration's frames per second.
        """
        question_row = self.asked(visual, question)  # runs once, all answers go on from it
        ids = [torch.tensor(self.text.answer(answer), device=question_row.device) for answer in answers]
        rows = [question_row, *(self.mllm.embed(own)[None] for own in ids)]
        lengths = [row.shape[1] for row in rows]
        positions = None
        if self.mllm.positions_per_second is not None:
            longest = self.asked_positions(question, [num_frames], answer=max(lengths[1:]))
            beginning, behind = longest.tensor_split([lengths[0]], dim=-1)
            positions = torch.cat([beginning, *(behind[..., :length] for length in lengths[1:])], -1)
        states = self.mllm(torch.cat(rows, 1), lengths, shared_row=0, positions=positions).last[0]
        asked, *answered = states.split(lengths)
        predicting = [torch.cat([asked[-1:], row[:-1]]) for row in answered]
        return list(self.mllm.lm_head(torch.cat(predicting), torch.cat(ids)).split(lengths[1:]))

    def asked(self, visual: Tensor, question: str) -> Tensor:
        """A question about the visual tokens (1, L, d), in the chat template, up to where the answer begins."""
        before, after = (torch.tensor(ids, device=visual.device) for ids in self.text.question(question))
        return torch.cat([self.mllm.embed(before)[None], visual, self.mllm.embed(after)[None]], 1)

    def asked_positions(
        self, question: str, frame_counts: list[int], fps: float | None = None, answer: int = 0
    ) -> Tensor | None:
        """Positions (3, 1, L) of :meth:`asked`, and of so many tokens of an answer, where the language model has mRoPE.

        Args:
            frame_counts: frames of the parts of the video, each of which has a key frame of its own.
        """
        if self.mllm.positions_per_second is None:
            return None
        videos = [self.clip_positions(sum(self.tokeniser.counts(count, fps)), count, fps) for count in frame_counts]
        before, after = map(len, self.text.question(question))
        return row_positions(before, videos, after + answer)[:, None].to(self.mllm.embed.weight.device)

    def video_embeddings(
        self,
        frames: Tensor,
        fps: float | None = None,
        key_frame_idx: int | Literal["detect"] | None = None,
        key_frame_every: float | None = None,
    ) -> Tensor:
        """A video's visual tokens as the language model reads them, (1, L, d); arguments as :meth:`understand`."""
        key = self.config.tokeniser.key_frame_idx if key_frame_idx is None else key_frame_idx
        parts = self.parts(frames, fps, key_frame_every)
        keys = [key] + [key if key == "detect" else min(key, len(part) - 1) for part in parts[1:]]
        tokens = [self.tokeniser(part[None], fps=fps, key_frame_idx=k) for part, k in zip(parts, keys)]
        return torch.cat([self.projection(each) for each in tokens], dim=1)

    def parts(self, frames: Tensor, fps: float | None, key_frame_every: float | None) -> tuple[Tensor, ...]:
        """A video's frames, cut at every so many seconds; arguments as :meth:`understand`."""
        seconds, fps = key_frame_every or math.inf, fps or self.config.tokeniser.fps
        return frames.split(max(1, round(min(seconds * fps, len(frames)))))
