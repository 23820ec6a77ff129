"""How much of the devices' arithmetic a run uses: model and hardware FLOPs utilisation (MFU, HFU).

MFU counts what the model needs, forward and backward once; HFU adds what gradient checkpointing computes again
(Chowdhery et al., 2022, appendix B). Both are shares of the peak of all ranks' devices.
"""

import time
from collections.abc import Iterable, Iterator
from statistics import mean

import torch
import torch.nn.functional as F

from pipelines.config import CAPTION_TOKENS, RunConfig
from pipelines.engine import distributed
from pipelines.engine.setup import precision
from pipelines.metering.flops import Flops, sample_flops
from vtok.framework import VTokFramework

# Dense bf16 FLOP/s by torch's device name, the first match; NVIDIA's data sheets, whose sparse figures are halved here.
BF16_PEAKS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
}

# Edges of the square matrices that are multiplied to measure a peak, and seconds for each size.
SIZES = (256, 512, 1024, 2048, 4096, 8192)
SECONDS = 0.1
LONG = 0.05  # seconds; the next size would take eight times as long


class Utilisation:
    """Utilisation of a run on ``ranks`` devices like this rank's.

    Args:
        captions: some of the data's; their mean length is taken for the typical one.
    """

    def __init__(self, config: RunConfig, framework: VTokFramework, ranks: int, captions: Iterable[str] = ()):
        lengths = [len(framework.text.answer(caption)) - 1 for caption in captions]  # the end token aside
        typical = round(mean(lengths)) if lengths else CAPTION_TOKENS
        parts = sample_flops(config, framework, typical).values()
        self.flops = Flops(*map(sum, zip(*parts)))
        self.peak = device_peak(distributed.device(), precision(config.train)) * ranks

    def at(self, samples_per_s: float) -> dict[str, float | None]:
        """``mfu`` and ``hfu``, 0..1, for samples of the typical length that the FLOPs are counted for.

        ``None`` where the run is faster than the peak: that peak was measured too low, and the shares are not known.
        """
        mfu, hfu = (flops * samples_per_s / self.peak for flops in self.flops)
        known = max(mfu, hfu) <= 1
        return {"mfu": mfu if known else None, "hfu": hfu if known else None}


def device_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a device: the data sheet's where it is known, else measured."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, peak in BF16_PEAKS.items():
            if part in name and "MIG" not in name:  # a share of a card
                return peak
    return measured_peak(device, dtype)


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of products of larger and larger square matrices; takes a second or two.

    On a CPU that has no instructions for bf16, its products are many times slower than those in fp32. Much of a model
    still computes in fp32 there, so that these count too.
    """
    dtypes = {dtype} if device.type == "cuda" else {dtype, torch.float32}
    return max(rate for one in dtypes for rate in product_rates(device, one))


def product_rates(device: torch.device, dtype: torch.dtype) -> Iterator[float]:
    """FLOP/s of the best product of each size, up to the first size whose product takes longer than ``LONG``."""
    for size in SIZES:
        a, b = torch.randn(2, size, size, device=device).to(dtype)
        best, end = float("inf"), time.perf_counter() + SECONDS
        F.linear(a, b)  # the first one chooses how
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
