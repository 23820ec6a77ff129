"""Samples the visual tokens of a video, one after the other, from the visual head."""

import torch
from torch import Tensor

from vtok.config import require
from vtok.framework import VTokFramework
from vtok.mllm import Hidden
from vtok.sampling import PLAIN, Sampling
from vtok.video_decoder import GenerationRow


class GrowingRow:
    """A generation row that grows by one visual token at a time. Keys and values of its past are kept.

    Attributes:
        hidden: States of what was added last.
    """

    def __init__(self, framework: VTokFramework, prompt: str):
        self.framework = framework
        ids = torch.tensor([framework.text.prompt(prompt)], device=framework.mllm.device)
        self.hidden: Hidden = framework.mllm(framework.mllm.embed(ids), use_cache=True)
        self.states = [self.hidden.conditioning[0]]

    @property
    def state(self) -> Tensor:
        """The last hidden state (1, d), which predicts the next token."""
        return self.hidden.last[:, -1]

    def append(self, embedding: Tensor) -> None:
        """Adds a visual token's embedding (1, 1, d)."""
        self.hidden = self.framework.mllm(embedding, cache=self.hidden.cache, use_cache=True)
        self.states.append(self.hidden.conditioning[0])


@torch.no_grad()
def sample_row(
    framework: VTokFramework,
    prompt: str,
    num_tokens: int,
    sampling: Sampling = PLAIN,
    generator: torch.Generator | None = None,
) -> GenerationRow:
    """Samples a video's ``num_tokens`` visual tokens after a prompt; with several candidates, takes the likeliest.

    Raises:
        ConfigError: The visual head has no mixture or no density, but the settings need it.
    """
    require_head(framework, sampling)
    candidates = [
        sample_candidate(framework, prompt, num_tokens, sampling, generator)
        for _ in range(sampling.candidates if num_tokens else 1)
    ]
    row, _ = min(candidates, key=lambda candidate: candidate[1])
    return row


def require_head(framework: VTokFramework, sampling: Sampling) -> None:
    """Raises ConfigError unless the model's visual heads can sample like that."""
    kind = framework.config.visual_head.kind
    require(
        sampling.candidates == 1 or all(head.has_density for head in framework.visual_head.values()),
        f"the visual head {kind} has no density by which to rank candidates: leave candidates at 1",
    )
    require(
        sampling.top_components is None or kind == "gmm",
        f"top_components is a setting of the visual head gmm, not of {kind}: leave it out",
    )


def sample_candidate(
    framework: VTokFramework, prompt: str, num_tokens: int, sampling: Sampling, generator: torch.Generator | None
) -> tuple[GenerationRow, float]:
    """Samples one sequence of visual tokens.

    Returns:
        Its row, and -log p of its tokens given the prompt, under the model's own distribution. 0 without candidates.
    """
    guided = num_tokens > 0 and sampling.guidance != 1
    rows = [GrowingRow(framework, text) for text in (prompt, *([""] * guided))]
    surprise = 0.0
    for index in framework.tokeniser.sampled(num_tokens):
        states = [row.state for row in rows]
        kind = framework.tokeniser.place(index).kind
        head = framework.visual_head[kind]
        drawn = head.sample(states[0], sampling, generator, *states[1:])
        if sampling.candidates > 1:
            surprise += head.terms * head.loss(states[0], drawn, drawn.new_zeros(1, 0)).detach().item()
        token = token_of(framework, kind, drawn, states[0].dtype)
        for row in rows:
            row.append(framework.projection(token[:, None], start=index))
    return generation_row(framework, torch.cat(rows[0].states), num_tokens), surprise


def token_of(framework: VTokFramework, kind: str, drawn: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the token (1, token_dim) of a sampled, standardised feature (1, dim)."""
    features = framework.tokeniser.feature_scale[kind].restore(drawn).to(dtype)
    return framework.tokeniser.encode_kind(kind, features)


def generation_row(framework: VTokFramework, states: Tensor, visual: int) -> GenerationRow:
    """Splits the states (L, d) of a prompt's row. The last ``visual`` of them are at visual tokens."""
    count = len(states) - visual
    return GenerationRow(states[framework.text.crop_start : count], states[count:])
