"""A step on stored features and latents, as ``precompute.py`` writes them, against the same step from video."""

from pathlib import Path

import torch

from pipelines.benchmarks.models import SMALL, Size, random_batch, random_framework
from pipelines.benchmarks.paired import cpu_seconds, ratio


def from_stored(folder: Path, size: Size = SMALL, clips: int = 2, repeats: int = 5) -> float:
    """CPU time of loss and backward from video over that from what is stored: how many times as fast it is.

    ``SMALL`` has the proportions of the tiny preset; what there is to gain depends on those alone.
    """
    framework = random_framework(folder, size)
    batch = random_batch(framework, clips)
    with torch.no_grad():
        features = framework.tokeniser.features(batch.frames, batch.frame_counts)
        stored = batch._replace(frames=features, video=framework.decoder.encode(batch.video))

    def from_video() -> None:
        framework(batch)["loss"].backward()

    def without_encoders() -> None:
        framework(stored)["loss"].backward()

    from_video(), without_encoders()
    return ratio(cpu_seconds(from_video), cpu_seconds(without_encoders), repeats)
