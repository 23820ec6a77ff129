"""``--profile 3-5``: traces some steps on rank 0, for Perfetto or chrome://tracing."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from pipelines.engine import distributed
from vtok.config import require


def profiled(steps: range, chosen: range | None, output: Path) -> Iterator[int]:
    """Yields ``steps``. Rank 0 traces those ``chosen`` into ``output/profile/``.

    A run that ends or resumes within them writes the trace of the steps it took.

    Raises:
        ConfigError: The run ends before them.
    """
    if chosen:
        named = f"--profile {chosen.start}-{chosen[-1]}"
        require(chosen.start < steps.stop, f"{named}: the run ends with step {steps.stop - 1}")
    recorder, begun = None, 0
    try:
        for step in steps:
            if recorder is None and chosen and step in chosen and distributed.rank() == 0:
                recorder, begun = start(), step
            with record_function(f"step {step}") if recorder else nullcontext():
                yield step
            if recorder and step == chosen[-1]:
                save(recorder, output, begun, step)
                recorder = None
    finally:
        if recorder:
            save(recorder, output, begun, step)


def start() -> profile:
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    recorder = profile(activities=activities)
    recorder.start()
    return recorder


def save(recorder: profile, output: Path, first: int, last: int) -> None:
    recorder.stop()
    (output / "profile").mkdir(exist_ok=True)
    recorder.export_chrome_trace(str(output / "profile" / f"rank0_steps_{first}-{last}.json.gz"))
