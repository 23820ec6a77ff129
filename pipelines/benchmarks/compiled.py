"""Blocks under ``torch.compile``, against themselves."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from pipelines.benchmarks.models import MEDIUM, Size, random_batch, random_framework
from pipelines.benchmarks.paired import cpu_seconds, ratio
from pipelines.benchmarks.step import calls_of


def compiling(folder: Path, size: Size = MEDIUM, repeats: int = 5) -> dict[str, float]:
    """CPU time of compiled blocks over that of the same blocks as they are, by model; after the compilation."""
    framework = random_framework(folder, size)
    calls = calls_of(framework, random_batch(framework, 2))
    model, extractor, dit = framework.mllm.causal_lm.model, framework.tokeniser.feature_extractor, framework.decoder
    blocks = {
        "language model": (model, model.layers),
        "CLIP": (extractor, extractor.clip.encoder.layers),
        "DiT": (dit.transformer, [*dit.transformer.transformer_blocks, *dit.transformer.single_transformer_blocks]),
    }
    found = {}
    for name, (owner, parts) in blocks.items():
        call = next(call for call in calls if getattr(call.function, "__self__", None) is owner)
        found[name] = ratio(
            run_with(call, parts, compile_each(parts)), run_with(call, parts, [None] * len(parts)), repeats
        )
    return found


def compile_each(parts: list[nn.Module]) -> list[Callable]:
    return [torch.compile(part._call_impl) for part in parts]


def run_with(call: Callable, parts: list[nn.Module], compiled: list[Callable | None]) -> Callable[[], float]:
    """CPU seconds of a call with these blocks compiled so; the first one, which compiles, is made here."""

    def run() -> None:
        for part, implementation in zip(parts, compiled):
            part._compiled_call_impl = implementation
        call()

    run()
    return cpu_seconds(run)
