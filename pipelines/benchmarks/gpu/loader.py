"""Clips decoded by loader processes, both views, up to the device."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data_tools.dataset import ClipDataset, Sample
from data_tools.shards import RawSample, ShardReader, write_manifest, write_shard
from data_tools.streaming.memory import stacked
from data_tools.video.decode import validate
from data_tools.video.views import decoder_view, tokeniser_view
from pipelines.benchmarks.data import moving_clip
from pipelines.benchmarks.gpu import measure, published
from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.sizes import Sizes
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.loading.loader import micro_batches

SHARD = 4  # samples, all of the same clip


class Pixels(NamedTuple):
    """Both views of a clip."""

    frames: Tensor
    video: Tensor

    def to(self, device: torch.device) -> "Pixels":
        return Pixels(*(view.to(device, non_blocking=True) for view in self))


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    """With the preset's loader processes, and with one a core."""
    clips, seconds, *shape = sizes.clips
    with tempfile.TemporaryDirectory() as name:
        dataset = write_dataset(Path(name), moving_clip(seconds, *shape), sizes)
        for workers in sorted({published.paper_run().data.workers, os.cpu_count() or 1}):
            taken = reading(dataset, workers, clips, device)
            yield Finding(f"clips with {workers} processes", clips / taken, "clips/s")


def write_dataset(folder: Path, clip: bytes, sizes: Sizes) -> ClipDataset:
    facts = validate(clip).to_dict()
    meta = {"caption": "It drifts.", "path": "clip.mp4", "facts": facts}
    write_shard(folder, 0, [RawSample(f"{number:09d}", clip, ".mp4", meta) for number in range(SHARD)])
    write_manifest(folder)
    model, seconds = published.paper_run().model, facts["duration"]
    small = tokeniser_view(seconds, model.tokeniser.fps, 336, 336)
    large = decoder_view(seconds, model.decoder.fps, *sizes.video[1:])
    return ClipDataset(ShardReader(folder), seed=0, seconds=seconds, tokeniser_view=small, decoder_view=large)


def reading(dataset: ClipDataset, workers: int, clips: int, device: torch.device) -> float:
    """Seconds of ``clips`` clips on the device, once every process has given one."""
    batches = micro_batches(dataset, plan_batch(1, 1, 1), workers, end=workers + clips, collate=pixels)
    for _ in range(workers):
        next(batches)
    started = time.perf_counter()
    for _ in batches:
        pass
    measure.synchronise(device)
    return time.perf_counter() - started


def pixels(samples: list[Sample]) -> Pixels:
    return Pixels(stacked([sample.frames for sample in samples]), stacked([sample.video for sample in samples]))
