"""The videos that a framework makes of prompts: visual tokens first, which then tell the decoder what to show."""

from typing import Any

import torch
from torch import Tensor

from vtok.config import require
from vtok.sharded import require_alike
from vtok.tokeniser import VisualFeatures
from vtok.video_decoder import GenerationRow


class GenerationMixin:
    """Of :class:`vtok.framework.VTokFramework`, which has the parts: prompt -> visual tokens -> decoder -> video."""

    def generate(
        self,
        prompt: str,
        seconds: float,
        fps: float | None = None,
        steps: int = 50,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        features: VisualFeatures | None = None,
    ) -> Tensor:
        """One video, (frames, 3, height, width) ``uint8``; arguments as :meth:`generate_batch`."""
        generators = None if generator is None else [generator]
        given = None if features is None else [features]
        return self.generate_batch([prompt], seconds, fps, steps, temperature, generators, given)[0]

    @torch.no_grad()
    def generate_batch(
        self,
        prompts: list[str],
        seconds: float,
        fps: float | None = None,
        steps: int = 50,
        temperature: float = 1.0,
        generators: list[torch.Generator] | None = None,
        features: list[VisualFeatures] | None = None,
    ) -> Tensor:
        """A video for each of B prompts: visual tokens first, video after video, then the decoder, all at once.

        Under ZeRO-3 all ranks call this together, with prompts of their own if need be.

        Args:
            seconds, fps: a video has ``round(seconds * fps)`` frames (``fps`` defaults to the decoder's); the
                smallest 4k + 1 at least that large are generated, the rest is cut.
            steps: denoising steps.
            temperature: of the visual tokens.
            generators: one a video, on the CPU.
            features: of true videos, whose tokens take the place of sampled ones: the best that sampling could do.

        Returns:
            (B, frames, 3, height, width) ``uint8``.

        Raises:
            ConfigError: the model has no decoder; or under ZeRO-3, the ranks differ in what they ask for but the
                prompts.
        """
        require(self.decoder is not None, f"a model with mllm.kind {self.config.mllm.kind} understands only")
        wanted = round(seconds * (fps or self.config.decoder.fps))
        ratio = self.decoder.latents_per_frame
        num_frames = -(-(wanted - 1) // ratio) * ratio + 1
        num_tokens = 0
        if features is None:
            num_tokens = sum(self.tokeniser.counts(round(seconds * self.config.tokeniser.fps) + 1))
        require_alike(self, videos=len(prompts), visual_tokens=num_tokens, denoising_steps=steps)
        if features is None:
            draws = generators or [None] * len(prompts)
            rows = [self.imagine(prompt, num_tokens, temperature, draw) for prompt, draw in zip(prompts, draws)]
        else:
            rows = list(map(self.recall, prompts, features))
        empty = None
        if self.config.decoder.true_guidance > 1:
            empty = self.conditioning([""] * len(prompts), [self.imagine("", 0)] * len(prompts))
        conditioning = self.conditioning(prompts, rows)
        return self.decoder.sample(conditioning, num_frames, steps, generators, empty)[:, :wanted]

    @torch.no_grad()
    def imagine(
        self, prompt: str, num_tokens: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> GenerationRow:
        """Sample a video's ``num_tokens`` visual tokens after a prompt, one at a time with a key-value cache."""
        prompt_ids = torch.tensor([self.text.prompt(prompt)], device=self.mllm.embed.weight.device)
        hidden = self.mllm(self.mllm.embed(prompt_ids), use_cache=True)
        states = [hidden.conditioning[0]]
        for index in range(num_tokens):
            token = self.sample_token(hidden.last[:, -1], index, temperature, generator)
            hidden = self.mllm(self.projection(token[:, None], start=index), cache=hidden.cache, use_cache=True)
            states.append(hidden.conditioning[0])
        return self.generation_row(torch.cat(states), num_tokens)

    @torch.no_grad()
    def recall(self, prompt: str, features: VisualFeatures) -> GenerationRow:
        """The row of :meth:`imagine`, with the tokens of one true video."""
        visual = self.projection(self.tokeniser.encode(self.in_model_dtype(features)))
        ids = torch.tensor([self.text.prompt(prompt)], device=visual.device)
        states = self.mllm(torch.cat([self.mllm.embed(ids), visual], 1)).conditioning[0]
        return self.generation_row(states, visual.shape[1])

    def generation_row(self, states: Tensor, visual: int) -> GenerationRow:
        """From the states (L, d) of a prompt's row, the last ``visual`` of which are visual tokens'."""
        count = len(states) - visual
        return GenerationRow(states[self.text.crop_start : count], states[count:])

    @torch.no_grad()
    def conditioning(self, prompts: list[str], rows: list[GenerationRow]) -> Any:
        """What the decoder is told of B videos."""
        ids = [self.text.caption_ids(prompt) for prompt in prompts]
        return self.decoder.condition(rows, self.decoder.encode_text(ids, self.mllm.embed.weight.device))

    def sample_token(self, state: Tensor, index: int, temperature: float, generator: torch.Generator | None) -> Tensor:
        """The visual token ``index`` (1, token_dim), sampled from the last hidden state (1, d) before it."""
        kind = self.tokeniser.place(index).kind
        standardised = self.visual_head[kind].sample(state, temperature, generator)
        features = self.tokeniser.feature_scale[kind].restore(standardised).to(state.dtype)
        return self.tokeniser.encode_kind(kind, features)
