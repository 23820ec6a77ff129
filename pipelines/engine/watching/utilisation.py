"""Model and hardware FLOPs utilisation (MFU, HFU) of a run.

MFU counts one forward and one backward of the model. HFU adds the recomputation of gradient checkpointing (Chowdhery et
al., 2022, appendix B). Both are shares of the peak of all ranks' devices.
"""

import time
from collections.abc import Iterable, Iterator
from functools import cache
from statistics import mean

import torch
import torch.nn.functional as F

from pipelines.config import CAPTION_TOKENS, RunConfig
from pipelines.engine import distributed
from pipelines.engine.setup import precision
from pipelines.metering.flops import Flops, sample_flops
from vtok.framework import VTokFramework

# Dense bf16 FLOP/s by torch's device name (first match), from NVIDIA's data sheets. Sparse figures are halved.
BF16_PEAKS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
}

# To measure a peak: edges of the square matrices that are multiplied, and seconds per size.
SIZES = (256, 512, 1024, 2048, 4096, 8192)
SECONDS = 0.1
LONG = 0.05  # seconds; the next size would take eight times as long


class Utilisation:
    """Computes the utilisation of a run on ``ranks`` devices like this rank's.

    Args:
        config: The run's configuration.
        framework: The run's framework.
        ranks: The number of devices.
        captions: Some captions of the data. Their mean length counts as typical.
    """

    def __init__(self, config: RunConfig, framework: VTokFramework, ranks: int, captions: Iterable[str] = ()):
        lengths = [len(framework.text.answer(caption)) - 1 for caption in captions]  # without the end token
        typical = round(mean(lengths)) if lengths else CAPTION_TOKENS
        parts = sample_flops(config, framework, typical).values()
        self.flops = Flops(*map(sum, zip(*parts)))
        self.peak = device_peak(distributed.device(), precision(config.train)) * ranks

    def at(self, samples_per_s: float, cost: float | None = None) -> dict[str, float | None]:
        """Returns ``mfu`` and ``hfu``, 0..1. Both are ``None`` if the run is faster than the peak, measured too low.

        Args:
            samples_per_s: Speed of a step.
            cost: Predicted FLOPs of its mean sample, if they are known (``data.buckets``). Else it has typical length.
        """
        share = 1 if cost is None else cost / self.flops.hardware
        mfu, hfu = (share * flops * samples_per_s / self.peak for flops in self.flops)
        known = max(mfu, hfu) <= 1
        return {"mfu": mfu if known else None, "hfu": hfu if known else None}


def device_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Returns the peak FLOP/s of a device: from the data sheet if known, else measured."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, peak in BF16_PEAKS.items():
            if part in name and "MIG" not in name:  # a share of a card
                return peak
    return measured_peak(device, dtype)


@cache
def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measures the FLOP/s of products of larger and larger square matrices. Returns the highest.

    Takes 1 or 2 s, once in a process.

    On a CPU without bf16 instructions, bf16 products are many times slower than fp32 ones. Much of a model computes in
    fp32 there anyway, so fp32 products count too.
    """
    dtypes = {dtype} if device.type == "cuda" else {dtype, torch.float32}
    return max(rate for one in dtypes for rate in product_rates(device, one))


def product_rates(device: torch.device, dtype: torch.dtype) -> Iterator[float]:
    """Yields the best FLOP/s of each size, up to the first size whose product takes longer than ``LONG``."""
    for size in SIZES:
        a, b = torch.randn(2, size, size, device=device).to(dtype)
        best, end = float("inf"), time.perf_counter() + SECONDS
        F.linear(a, b)  # the first product chooses the kernel
        while time.perf_counter() < end or best == float("inf"):
            synchronise(device)
            started = time.perf_counter()
            F.linear(a, b)
            synchronise(device)
            best = min(best, time.perf_counter() - started)
        yield 2 * size**3 / best
        if best > LONG:
            return


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
