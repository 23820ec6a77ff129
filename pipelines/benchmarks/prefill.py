"""Reading a video of growing length: VTok's tokens against S tokens for every frame, at the same frame rate."""

from pathlib import Path
from typing import NamedTuple

import torch

from pipelines.benchmarks.models import MEDIUM, Size, random_framework
from pipelines.benchmarks.paired import cpu_seconds
from vtok.framework import VTokFramework
from vtok.tokeniser.layout import num_motion_tokens

STRATEGIES = ("vtok", "frames")


class Reading(NamedTuple):
    """What it takes to read a question about a video.

    Attributes:
        frames: of the video.
        visual_tokens: what they become.
        tokens: of the whole prompt.
        seconds: CPU time of the language model's prefill.
        cache: bytes of keys and values.
    """

    frames: int
    visual_tokens: int
    tokens: int
    seconds: float
    cache: int


def prefilling(folder: Path, lengths: tuple[int, ...], size: Size = MEDIUM) -> dict[int, dict[str, Reading]]:
    """By seconds of video, and by strategy. The encoders are left out: both ways run them on every frame."""
    framework = random_framework(folder, size).eval()
    read(framework, lengths[0], "vtok")  # the first of all is slow
    return {seconds: {name: read(framework, seconds, name) for name in STRATEGIES} for seconds in lengths}


@torch.no_grad()
def read(framework: VTokFramework, seconds: int, strategy: str) -> Reading:
    config = framework.config.tokeniser
    frames = int(seconds * config.fps)
    question = sum(map(len, framework.text.question("What happens?")))
    motion = num_motion_tokens(frames, config)
    visual = config.num_spatial_tokens + motion if strategy == "vtok" else config.num_spatial_tokens * frames
    prompt = torch.randn(1, question + visual, framework.mllm.dim)
    caches = []

    def prefill() -> None:
        caches.append(framework.mllm.causal_lm.model(inputs_embeds=prompt, use_cache=True).past_key_values)

    taken = cpu_seconds(prefill)()
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in caches[0].layers)
    return Reading(frames, visual, prompt.shape[1], taken, kept)
