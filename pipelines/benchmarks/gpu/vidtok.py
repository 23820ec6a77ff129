"""VidTok's encoder and decoder on the published clip, compiled and not."""

from collections.abc import Iterator

import torch

from pipelines.benchmarks.gpu import measure
from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.sizes import Sizes
from vtok.vidtok import load_model

NAME = "vidtok_kl_causal_488_4chn"


@torch.no_grad()
def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    """In bf16; compilation is not part of the time."""
    frames, side = sizes.clip
    model = load_model(NAME, **sizes.vidtok).eval().to(device, torch.bfloat16)
    clip = torch.rand(1, 3, frames, side, side, device=device, dtype=torch.bfloat16) * 2 - 1
    latents = model.encode(clip)
    works = {"encode": (model.encode, clip), "decode": (model.decode, latents)}
    shape = f"{frames} x {side} x {side}"
    for name, (work, given) in works.items():
        yield Finding(f"{name} {shape}", measure.seconds(lambda: work(given), device, sizes.repeats), "s")
    for name, (work, given) in works.items():
        compiled = torch.compile(work, backend=sizes.compiler)
        taken = measure.seconds(lambda: compiled(given), device, sizes.repeats)
        yield Finding(f"{name} {shape}, compiled", taken, "s")
