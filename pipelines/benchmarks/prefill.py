"""Reading a video of growing length: VTok's tokens against S tokens for every frame, at the same frame rate."""

from pathlib import Path
from typing import NamedTuple

import torch

from pipelines.benchmarks.models import MEDIUM, Size, random_framework
from pipelines.benchmarks.paired import cpu_seconds, ratio
from vtok.framework import VTokFramework
from vtok.layout import num_motion_tokens


class Prefill(NamedTuple):
    """Of one length of video, VTok's over that of frame sampling, but for the first.

    Attributes:
        tokens_per_frame: VTok's visual tokens.
        tokens: of the whole prompt.
        seconds: CPU time of the language model's prefill.
        cache: bytes of keys and values.
    """

    tokens_per_frame: float
    tokens: float
    seconds: float
    cache: float


def prefilling(folder: Path, lengths: tuple[int, ...], size: Size = MEDIUM, repeats: int = 1) -> dict[int, Prefill]:
    """Figures by seconds of video. The encoders are left out: both ways run them on every frame."""
    framework = random_framework(folder, size).eval()
    return {seconds: compared(framework, seconds, repeats) for seconds in lengths}


@torch.no_grad()
def compared(framework: VTokFramework, seconds: int, repeats: int) -> Prefill:
    config = framework.config.tokeniser
    frames = int(seconds * config.fps)
    question = sum(map(len, framework.text.question("What happens?")))
    ours = config.num_spatial_tokens + num_motion_tokens(frames, config)
    prompts = {
        name: torch.randn(1, question + visual, framework.mllm.dim)
        for name, visual in (("vtok", ours), ("frames", config.num_spatial_tokens * frames))
    }
    caches = {}

    def run(name: str) -> None:
        cache = framework.mllm.causal_lm.model(inputs_embeds=prompts[name], use_cache=True).past_key_values
        caches[name] = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)

    run("vtok")  # the first of all is slow
    taken = ratio(cpu_seconds(lambda: run("vtok")), cpu_seconds(lambda: run("frames")), repeats)
    tokens = prompts["vtok"].shape[1] / prompts["frames"].shape[1]
    return Prefill(ours / frames, tokens, taken, caches["vtok"] / caches["frames"])
