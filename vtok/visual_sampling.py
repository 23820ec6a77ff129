"""Samples the visual tokens of videos, one after the other, from the visual heads."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vtok.config import require
from vtok.framework import VTokFramework
from vtok.mllm import Hidden
from vtok.sampling import PLAIN, Sampling
from vtok.tokeniser import VisualFeatures
from vtok.video_decoder import GenerationRow


class GrowingRows:
    """Generation rows that grow by one visual token at a time. Keys and values of their past are kept.

    Args:
        framework: The model.
        prompts: B prompts of as many tokens each.

    Attributes:
        hidden: States of what was added last.
        states: For the decoder, those of all that was added so far, (B, n, d) each.
    """

    def __init__(self, framework: VTokFramework, prompts: Sequence[str]):
        self.framework = framework
        ids = torch.tensor([framework.text.prompt(prompt) for prompt in prompts], device=framework.mllm.device)
        self.hidden: Hidden = framework.mllm(framework.mllm.embed(ids), use_cache=True)
        self.states = [self.hidden.conditioning]

    @property
    def state(self) -> Tensor:
        """The last hidden states (B, d), which predict the next tokens."""
        return self.hidden.last[:, -1]

    def append(self, embeddings: Tensor) -> None:
        """Adds the embeddings (B, 1, d) of a visual token of each row."""
        self.hidden = self.framework.mllm(embeddings, cache=self.hidden.cache, use_cache=True)
        self.states.append(self.hidden.conditioning)


class Drawn(NamedTuple):
    """One visual token of each of B videos, as it was sampled.

    Attributes:
        kind: ``spatial`` or ``motion``.
        states: The states (B, d) that it was sampled from.
        feature: Its standardised feature (B, dim).
    """

    kind: str
    states: Tensor
    feature: Tensor


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
    rows = rows_of(framework, [prompt], num_tokens, sampling)
    surprise = 0.0
    for kind, states, feature in grow(framework, rows, num_tokens, sampling, generator):
        if sampling.candidates > 1:
            head = framework.visual_head[kind]
            surprise += head.terms * head.loss(states, feature, feature.new_zeros(1, 0)).detach().item()
    return generation_row(framework, torch.cat(rows[0].states, 1)[0], num_tokens), surprise


def rows_of(framework: VTokFramework, prompts: Sequence[str], num_tokens: int, sampling: Sampling) -> list[GrowingRows]:
    """Returns the rows of B prompts and, with guidance, those of as many empty ones."""
    guided = num_tokens > 0 and sampling.guidance != 1
    return [GrowingRows(framework, texts) for texts in (prompts, *([[""] * len(prompts)] * guided))]


def grow(
    framework: VTokFramework, rows: list[GrowingRows], num_tokens: int, sampling: Sampling,
    generator: torch.Generator | None,
) -> Iterator[Drawn]:  # fmt: skip
    """Samples visual tokens and appends them to the rows. Yields each token before the next one is sampled."""
    for index in framework.tokeniser.sampled(num_tokens):
        states = [row.state for row in rows]
        kind = framework.tokeniser.place(index).kind
        drawn = framework.visual_head[kind].sample(states[0], sampling, generator, *states[1:])
        token = token_of(framework, kind, drawn, states[0].dtype)
        for row in rows:
            row.append(framework.projection(token[:, None], start=index))
        yield Drawn(kind, states[0], drawn)


@torch.no_grad()
def sample_features(
    framework: VTokFramework,
    prompts: Sequence[str],
    num_tokens: int,
    sampling: Sampling = PLAIN,
    generator: torch.Generator | None = None,
) -> VisualFeatures:
    """Samples the frozen features of the visual tokens of B videos together, in fp32.

    Args:
        framework: The model.
        prompts: B prompts of as many tokens each.
        num_tokens: Visual tokens of a video.
        sampling: How to sample. ``candidates`` has no effect.
        generator: On the CPU.

    Raises:
        ConfigError: As :func:`sample_row`.
    """
    require_head(framework, sampling)
    rows, found = rows_of(framework, prompts, num_tokens, sampling), defaultdict[str, list[Tensor]](list)
    for kind, _, drawn in grow(framework, rows, num_tokens, sampling, generator):
        found[kind].append(framework.tokeniser.feature_scale[kind].restore(drawn))
    none = torch.zeros(len(prompts), 0, 0, device=framework.mllm.device)
    spatial, motion = (torch.stack(found[kind], 1) if found[kind] else none for kind in ("spatial", "motion"))
    return VisualFeatures(spatial, motion, [motion.shape[1]] * len(prompts))


def token_of(framework: VTokFramework, kind: str, drawn: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the tokens (B, token_dim) of sampled, standardised features (B, dim)."""
    features = framework.tokeniser.feature_scale[kind].restore(drawn).to(dtype)
    return framework.tokeniser.encode_kind(kind, features)


def generation_row(framework: VTokFramework, states: Tensor, visual: int) -> GenerationRow:
    """Splits the states (L, d) of a prompt's row. The last ``visual`` of them are at visual tokens."""
    count = len(states) - visual
    return GenerationRow(states[framework.text.crop_start : count], states[count:])
