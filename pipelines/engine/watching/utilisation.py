"""How much of the devices' arithmetic a run uses: model and hardware FLOPs utilisation (MFU, HFU).

MFU counts what the model needs, forward and backward once; HFU adds what gradient checkpointing computes again
(Chowdhery et al., 2022, appendix B). Both are shares of the peak of all ranks' devices.
"""

import time
from collections.abc import Iterable
from statistics import mean

import torch

from pipelines.config import RunConfig
from pipelines.engine import distributed
from pipelines.engine.setup import precision
from pipelines.engine.watching.flops import Flops, sample_flops
from pipelines.planning.workload import CAPTION_TOKENS
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

    def at(self, samples_per_s: float) -> dict[str, float]:
        """``mfu`` and ``hfu``, 0..1, for samples of the typical length that the FLOPs are counted for."""
        return {name: flops * samples_per_s / self.peak for name, flops in zip(("mfu", "hfu"), self.flops)}


def device_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a device: the data sheet's where it is known, else measured."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, peak in BF16_PEAKS.items():
            if part in name:
                return peak
    return measured_peak(device, dtype)


def measured_peak(device: torch.device, dtype: torch.dtype, size: int = 1024, seconds: float = 0.2) -> float:
    """FLOP/s of the best of the products of two ``size`` x ``size`` matrices that fit into ``seconds``."""
    a = torch.ones(size, size, dtype=dtype, device=device)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        started = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
