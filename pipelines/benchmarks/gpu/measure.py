"""Time, memory and kernels of a piece of work on a device: events on a GPU, the clock on a CPU."""

import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from pipelines.metering.meter import metered

Work = Callable[[], object]

# What makes the host wait for the device: calls of CUDA, as the profiler names them.
SYNCHRONISING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Work, device: torch.device, repeats: int) -> float:
    """Median seconds of a call, from the first kernel's start to the last one's end."""
    for _ in range(min(repeats, 2)):  # the first ones are slow
        work()
    return median(once(work, device) for _ in range(repeats))


def once(work: Work, device: torch.device) -> float:
    """Seconds of one call."""
    synchronise(device)
    if device.type != "cuda":
        return wall_seconds(work, device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def wall_seconds(work: Work, device: torch.device) -> float:
    """Seconds of one call by the host's clock, up to the end of its last kernel."""
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


def peak_bytes(work: Work, device: torch.device) -> int:
    """The most bytes that the tensors of a call take beside those that were there before."""
    if device.type != "cuda":
        return metered(work, device.type).peak
    synchronise(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    synchronise(device)
    return torch.cuda.max_memory_allocated(device) - before


class Kernel(NamedTuple):
    """All calls of one kernel; on a CPU of one operator, without those inside it."""

    name: str
    seconds: float
    calls: int


class Trace(NamedTuple):
    """What the profiler saw of a call.

    Attributes:
        kernels: the slowest first.
        operators: seconds on the device of the kernels that each operator started itself.
        busy: seconds in which a kernel ran.
        synchronisations: how often the host waited for the device; the last one or two are the measurement's own.
    """

    kernels: list[Kernel]
    operators: dict[str, float]
    busy: float
    synchronisations: int


def trace(work: Work, device: torch.device) -> Trace:
    """One call under the profiler, after one that is not."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    work()
    synchronise(device)
    with profile(activities=activities) as recorded:
        work()
        synchronise(device)
    events = recorded.events()
    totals: dict[str, list[float]] = defaultdict(list)
    operators: dict[str, float] = defaultdict(float)
    intervals = []
    for event in events:
        is_kernel = event.device_type == DeviceType.CUDA
        if not is_kernel:
            operators[event.name] += (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
        if is_kernel == on_gpu:
            taken = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
            totals[event.name].append(taken / 1e6)
            intervals.append((event.time_range.start, event.time_range.end))
    kernels = sorted((Kernel(name, sum(calls), len(calls)) for name, calls in totals.items()), key=lambda k: -k.seconds)
    waits = sum(event.name in SYNCHRONISING for event in events)
    return Trace(kernels, operators, covered(intervals) / 1e6, waits)


def covered(intervals: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
