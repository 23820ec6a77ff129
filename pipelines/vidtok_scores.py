"""How well a VidTok reconstructs videos: PSNR, SSIM and, where its weights are given, LPIPS.

Videos are cut into clips of 17 frames (causal) or 16 that do not overlap. A shorter last clip is filled up with its
last frame, and only its real frames are scored. Each score is the mean over frames.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from data_tools.errors import DataError
from data_tools.shards import atomic_write
from data_tools.video_files import list_videos
from pipelines.engine import distributed
from pipelines.vidtok_clips import read_clips
from pipelines.vidtok_models import load_vidtok
from vtok.config import require
from vtok.vidtok import VidTok, metrics
from vtok.vidtok.losses.perceptual import load_lpips
from vtok.vidtok.model import lengthened

Metric = Callable[[Tensor, Tensor], Tensor]  # frames (T, 3, H, W) in [0, 1], and theirs -> (T,)
BETTER = {"psnr": "higher", "ssim": "higher", "lpips": "lower"}


def evaluate(a: argparse.Namespace) -> None:
    """The command ``evaluate.py vidtok``; raises ConfigError or DataError for what the user can mend."""
    require(a.fps > 0, "--fps must be positive")
    device = distributed.device()
    model = load_vidtok(a.config, a.checkpoint).to(device)
    factor = model.config.space_factor
    require(
        min(a.height, a.width) >= metrics.WINDOW and a.height % factor == a.width % factor == 0,
        f"--height and --width must be multiples of {factor} and at least {metrics.WINDOW}, not {a.height}x{a.width}",
    )
    measures: dict[str, Metric] = {"psnr": metrics.psnr, "ssim": metrics.ssim}
    if a.lpips:
        lpips = load_lpips(*a.lpips).to(device)
        measures["lpips"] = lambda x, y: lpips(2 * x - 1, 2 * y - 1)
    by_video = {}
    for video in list_videos(a.data, a.meta_path):
        by_video[str(video.relative_to(a.data))] = frame_scores(model, video, a.fps, a.height, a.width, measures)
    settings = {name: str(getattr(a, name)) for name in ("config", "checkpoint", "fps", "height", "width")}
    report = {"settings": settings} | summary(by_video)
    with atomic_write(a.output) as file:
        file.write(json.dumps(report, indent=1).encode() + b"\n")
    print(as_table(report["mean"]))


@torch.no_grad()
def frame_scores(
    model: VidTok, video: Path, fps: float, height: int, width: int, measures: dict[str, Metric]
) -> dict[str, Tensor]:
    """Each measure of each frame of a video, (frames,), on the CPU.

    Raises:
        DataError: the video cannot be read.
    """
    length = 17 if model.is_causal else 16
    scores: dict[str, list[Tensor]] = {name: [] for name in measures}
    try:
        for clip in read_clips(video, fps, height, width, length)[1]:
            frames = clip.shape[2]
            clip = clip.to(next(model.parameters()).device)
            reconstruction = model(lengthened(clip, 0, length - frames))[1][:, :, :frames]
            x, y = (unit_range(one) for one in (clip, reconstruction))
            for name, measure in measures.items():
                scores[name].append(measure(x, y).cpu())
    except DataError as error:
        raise DataError(f"{video}: {error}") from error
    return {name: torch.cat(parts) for name, parts in scores.items()}


def unit_range(x: Tensor) -> Tensor:
    """(1, 3, T, H, W) in [-1, 1] to frames (T, 3, H, W) in [0, 1]."""
    return (x[0].float().transpose(0, 1).clamp(-1, 1) + 1) / 2


def summary(by_video: dict[str, dict[str, Tensor]]) -> dict[str, dict]:
    """Means over all frames, and over those of each video."""

    def means(scores: dict[str, Tensor]) -> dict[str, float]:
        return {"frames": len(scores["psnr"])} | {name: values.mean().item() for name, values in scores.items()}

    every = {name: torch.cat([scores[name] for scores in by_video.values()]) for name in next(iter(by_video.values()))}
    mean = {"videos": len(by_video)} | means(every)
    return {"mean": mean, "videos": {name: means(scores) for name, scores in by_video.items()}}


def as_table(mean: dict[str, float]) -> str:
    lines = [f"{mean['videos']} videos, {mean['frames']} frames", f"{'measure':<8}{'mean':>9}  better"]
    return "\n".join(lines + [f"{name:<8}{mean[name]:>9.4f}  {BETTER[name]}" for name in BETTER if name in mean])
