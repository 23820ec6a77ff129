"""Samples the visual tokens of videos, one token after the other, from the visual heads."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vtok.config import require
from vtok.framework import VTokFramework
from vtok.mllm import Hidden
from vtok.sampling import PLAIN, Sampling
from vtok.sharded import needs_all_ranks
from vtok.tokeniser import VisualFeatures
from vtok.video_decoder import GenerationRow
from vtok.visual_head.draws import Generators

AT_ONCE = 64  # videos whose features are sampled at once, at most


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
    """Samples the visual tokens of one video. Arguments as in :func:`sample_rows`."""
    [[row]] = sample_rows(framework, [prompt], num_tokens, sampling, None if generator is None else [generator])
    return row


@torch.no_grad()
def sample_rows(
    framework: VTokFramework,
    prompts: Sequence[str],
    num_tokens: int,
    sampling: Sampling = PLAIN,
    generators: Sequence[torch.Generator] | None = None,
    videos: int = 1,
) -> list[list[GenerationRow]]:
    """Samples the visual tokens of videos of B prompts, those of :func:`together` at once.

    Args:
        framework: The model.
        prompts: The prompts.
        num_tokens: Visual tokens of a video.
        sampling: How to sample. Of several candidates for a video the likeliest is taken.
        generators: One for each video, on the CPU, those of a prompt one after the other. So a video does not depend on
            the others.
        videos: Videos of each prompt.

    Returns:
        The rows of the videos of each prompt.

    Raises:
        ConfigError: The visual head has no mixture or no density, but the settings need it.
    """
    require_head(framework, sampling)
    found: list[list[GenerationRow]] = [[] for _ in prompts]
    for group in together(framework, prompts):
        places = [place for place in group for _ in range(videos)]
        numbers = [place * videos + number for place in group for number in range(videos)]
        own = None if generators is None else [generators[number] for number in numbers]
        texts = [prompts[place] for place in places]
        tries = [
            sample_candidates(framework, texts, num_tokens, sampling, own)
            for _ in range(sampling.candidates if num_tokens else 1)
        ]
        for place, *candidates in zip(places, *tries):
            found[place].append(min(candidates, key=lambda candidate: candidate[1])[0])
    return found


def together(framework: VTokFramework, prompts: Sequence[str]) -> list[list[int]]:
    """Groups the places of prompts that the model can continue at once: those with as many tokens.

    Under ZeRO-3 each prompt is a group of its own, since all ranks must run the model equally often.
    """
    if needs_all_ranks(framework):
        return [[place] for place in range(len(prompts))]
    by_length = defaultdict[int, list[int]](list)
    for place, prompt in enumerate(prompts):
        by_length[len(framework.text.prompt(prompt))].append(place)
    return list(by_length.values())


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


def sample_candidates(
    framework: VTokFramework, prompts: Sequence[str], num_tokens: int, sampling: Sampling, generators: Generators
) -> list[tuple[GenerationRow, float]]:
    """Samples one sequence of visual tokens for each of B prompts of as many tokens.

    Returns:
        For each prompt its row, and -log p of its tokens given the prompt, under the model's own distribution. It is 0
        without candidates.
    """
    rows, surprise = rows_of(framework, prompts, num_tokens, sampling), torch.zeros(len(prompts))
    for kind, states, feature in grow(framework, rows, num_tokens, sampling, generators):
        if sampling.candidates > 1:
            head = framework.visual_head[kind]
            surprise += head.terms * head.loss(states, feature, feature.new_zeros(len(prompts), 0)).detach().cpu()
    states = torch.cat(rows[0].states, 1)
    return [(generation_row(framework, own, num_tokens), cost) for own, cost in zip(states, surprise.tolist())]


def rows_of(framework: VTokFramework, prompts: Sequence[str], num_tokens: int, sampling: Sampling) -> list[GrowingRows]:
    """Returns the rows of B prompts and, with guidance, those of as many empty ones."""
    guided = num_tokens > 0 and sampling.guidance != 1
    return [GrowingRows(framework, texts) for texts in (prompts, *([[""] * len(prompts)] * guided))]


def grow(
    framework: VTokFramework, rows: list[GrowingRows], num_tokens: int, sampling: Sampling, generators: Generators
) -> Iterator[Drawn]:  # fmt: skip
    """Samples visual tokens and appends them to the rows. Yields each token before the next one is sampled."""
    for index in framework.tokeniser.sampled(num_tokens):
        states = [row.state for row in rows]
        kind = framework.tokeniser.place(index).kind
        drawn = framework.visual_head[kind].sample(states[0], sampling, generators, *states[1:])
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
    generators: Generators = None,
) -> VisualFeatures:
    """Samples the frozen features of the visual tokens of B videos, in fp32, those of :func:`together` at once.

    Args:
        framework: The model.
        prompts: B prompts.
        num_tokens: Visual tokens of a video.
        sampling: How to sample. ``candidates`` has no effect.
        generators: On the CPU. One for all videos, or one for each.

    Raises:
        ConfigError: As :func:`sample_rows`.
    """
    require_head(framework, sampling)
    order: list[int] = []
    found: list[tuple[Tensor, Tensor]] = []
    for group in together(framework, prompts):
        for start in range(0, len(group), AT_ONCE):
            places = group[start : start + AT_ONCE]
            own = [generators[place] for place in places] if isinstance(generators, Sequence) else generators
            found.append(features_at_once(framework, [prompts[place] for place in places], num_tokens, sampling, own))
            order += places
    back = torch.tensor(order).argsort()
    spatial, motion = (torch.cat(parts)[back] for parts in zip(*found))
    return VisualFeatures(spatial, motion, [motion.shape[1]] * len(prompts))


def features_at_once(
    framework: VTokFramework, prompts: Sequence[str], num_tokens: int, sampling: Sampling, generators: Generators
) -> tuple[Tensor, Tensor]:
    """Returns sampled spatial and motion features (B, n, dim) of B prompts of as many tokens."""
    rows, found = rows_of(framework, prompts, num_tokens, sampling), defaultdict[str, list[Tensor]](list)
    for kind, _, drawn in grow(framework, rows, num_tokens, sampling, generators):
        found[kind].append(framework.tokeniser.feature_scale[kind].restore(drawn))
    none = torch.zeros(len(prompts), 0, 0, device=framework.mllm.device)
    spatial, motion = (torch.stack(found[kind], 1) if found[kind] else none for kind in ("spatial", "motion"))
    return spatial, motion


def token_of(framework: VTokFramework, kind: str, drawn: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the tokens (B, token_dim) of sampled, standardised features (B, dim)."""
    features = framework.tokeniser.feature_scale[kind].restore(drawn).to(dtype)
    return framework.tokeniser.encode_kind(kind, features)


def generation_row(framework: VTokFramework, states: Tensor, visual: int) -> GenerationRow:
    """Splits the states (L, d) of a prompt's row. The last ``visual`` of them are at visual tokens."""
    count = len(states) - visual
    return GenerationRow(states[framework.text.crop_start : count], states[count:])
