"""Makes videos of prompts and writes them to files."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data_tools.video.media import save_mp4
from pipelines.config import RunConfig
from vtok.config import require
from vtok.framework import VTokFramework
from vtok.generation import generate_batch
from vtok.tokeniser import VisualFeatures


class Wanted(NamedTuple):
    """A video to be made.

    Attributes:
        features: of a true video, whose tokens take the place of sampled ones.
    """

    path: Path
    prompt: str
    seed: int = 0
    features: VisualFeatures | None = None


def generate_videos(
    config: RunConfig,
    framework: VTokFramework,
    wanted: list[Wanted],
    seconds: float,
    fps: float | None = None,
    steps: int = 50,
    temperature: float = 1.0,
) -> Tensor:
    """Write an mp4 of ``round(seconds * fps)`` frames for each; returns all frames, (B, F, 3, H, W) ``uint8``.

    Args:
        wanted: all with features, or none.
    """
    fps = fps or config.model.decoder.fps
    require(seconds > 0 and fps > 0, "--seconds and --fps must be positive")
    require(round(seconds * fps) >= 1, f"{seconds:g} s at {fps:g} frames per second are no frame at all")
    paths, prompts, seeds, features = map(list, zip(*wanted))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    real = None if features[0] is None else features
    videos = generate_batch(framework, prompts, seconds, fps, steps, temperature, generators, real).cpu()
    for path, frames in zip(paths, videos):
        save_mp4(frames, fps, path)
    return videos
