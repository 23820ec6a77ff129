"""Blocks under ``torch.compile`` against themselves: the diffusion transformer's and the language model's."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import torch

from pipelines.benchmarks.gpu import language_model, measure, published, transformer
from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.sizes import Sizes
from pipelines.engine.compiling import compile_blocks

LAYERS = 2  # of the language model


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    """One of each kind of block, with the gradients that training asks for; how long the first call takes."""
    decoder, mllm = published.decoder(sizes), published.language_model(sizes, LAYERS)
    published.with_weights(decoder.transformer, device)
    published.with_weights(mllm, device)
    works = {
        "a double and a single DiT block": transformer.training_step(decoder, sizes, device),
        f"{LAYERS} layers of the language model": language_model.training_step(mllm, sizes, device),
    }
    plain = {name: measure.seconds(work, device, sizes.repeats) for name, work in works.items()}
    peaks = {name: measure.peak_bytes(work, device) for name, work in works.items()}
    compile_blocks(SimpleNamespace(mllm=mllm, decoder=decoder), sizes.compiler)  # type: ignore[arg-type]
    for name, work in works.items():
        started = time.perf_counter()
        work()
        yield Finding(f"{name}: the first call, which compiles", time.perf_counter() - started, "s")
        taken = measure.seconds(work, device, sizes.repeats)
        yield Finding(f"{name}, compiled / as they are, time", taken / plain[name], "of 1")
        if device.type == "cuda":  # the meter of a CPU does not see into compiled code
            peak = measure.peak_bytes(work, device)
            yield Finding(f"{name}, compiled / as they are, peak", peak / peaks[name], "of 1")
