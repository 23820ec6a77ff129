"""The host memory that a save copies to: its true size, and how fast a GPU's tensors come there."""

import time
from collections.abc import Iterator

import psutil
import torch

from pipelines.benchmarks.gpu import measure
from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.sizes import Sizes
from pipelines.engine.saving import host_buffers

KINDS = 4  # weights, both moments, EMA


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    """Buffers of odd lengths, as a rank's are, taken as the engine takes them."""
    elements = [sizes.copied // 4 // KINDS + 7] * KINDS
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    buffers = host_buffers.take(elements, pin=device.type == "cuda")
    seconds = time.perf_counter() - started
    taken = psutil.Process().memory_info().rss - before
    yield Finding("host memory taken", taken, "bytes", host_buffers.pinned_bytes(elements))
    yield Finding("taking it", seconds, "s")
    tensor = torch.randn(elements[0], device=device)
    copying = measure.seconds(lambda: buffers[0].copy_(tensor, non_blocking=True), device, sizes.repeats)
    yield Finding("copy from the device", tensor.nbytes / copying, "bytes/s")
