"""Where the CPU time of one optimiser step goes, by operator."""

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from pipelines.benchmarks.models import LARGE, Size, random_batch, random_framework
from pipelines.config import TrainConfig
from pipelines.engine.setup import parameter_groups

# Matrix products, attention and convolutions, which are made of them, included.
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "scaled_dot_product", "linear")


def shares_of_a_step(folder: Path, size: Size = LARGE, clips: int = 2) -> dict[str, float]:
    """Each operator's own share of the CPU time of forward, backward and update in plain PyTorch, largest first."""
    framework = random_framework(folder, size)
    batch = random_batch(framework, clips)
    train = TrainConfig(max_steps=1)
    optimiser = torch.optim.AdamW(parameter_groups(framework, train), lr=train.lr, fused=True)

    def step() -> None:
        framework(batch)["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()

    step()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    times = {event.key: event.self_cpu_time_total for event in recorded.key_averages()}
    total = sum(times.values())
    return {name: time / total for name, time in sorted(times.items(), key=lambda item: -item[1])}


def is_product(operator: str) -> bool:
    return any(product in operator.removeprefix("aten::").split(".")[0] for product in PRODUCTS)
