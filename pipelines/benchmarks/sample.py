"""Visual tokens sampled after a prompt, against the bare language model decoding as many with its cache."""

from pathlib import Path

import torch

from pipelines.benchmarks.models import LARGE, Size, random_framework
from pipelines.benchmarks.paired import cpu_seconds, ratio
from vtok.generation import sample_row
from vtok.mllm.base import CACHE

PROMPT = "A small red circle moves to the right."


@torch.no_grad()
def sampling(folder: Path, size: Size = LARGE, motion_tokens: int = 29, repeats: int = 5) -> float:
    """CPU time of ``imagine`` over that of the prompt's prefill and one cached step a visual token."""
    framework = random_framework(folder, size).eval()
    model = framework.mllm.causal_lm.model
    steps = framework.config.tokeniser.num_spatial_tokens + motion_tokens
    ids = torch.tensor([framework.text.prompt(PROMPT)])
    token = torch.randn(1, 1, framework.mllm.dim)

    def bare() -> None:
        cache = model(input_ids=ids, use_cache=True).past_key_values
        for _ in range(steps):
            cache = model(inputs_embeds=token, use_cache=True, **{CACHE: cache}).past_key_values

    def ours() -> None:
        sample_row(framework, PROMPT, steps)

    bare(), ours()
    return ratio(cpu_seconds(ours), cpu_seconds(bare), repeats)
