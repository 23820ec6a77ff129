"""Scores the reconstructions of a VidTok: PSNR and SSIM, and LPIPS and FVD where their weights are given.

Videos are cut into clips that do not overlap, of 17 frames (causal models) or 16. A shorter last clip is filled up with
copies of its last frame, and only its real frames are scored. Each score is the mean over frames. Only FVD is computed
once, from all complete clips.

With ``--read-long-video`` a whole video is one clip, reconstructed ``--chunk`` frames at a time by a causal model. Its
frames are scored, and FVD is that of its consecutive clips. With ``--upstream-compat`` chunks of v1.1 overlap in the
decoder as in the published code, with which v1.1's table was made.

With ``--tile`` each clip is also reconstructed in tiles. ``tiles`` is the PSNR of these reconstructions to those of
whole frames. It tells how much tiles cost where whole frames do not fit into memory.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data_tools.errors import DataError
from data_tools.shards import atomic_write
from data_tools.video.files import list_videos
from pipelines.engine import distributed
from pipelines.vidtok_training.clips import read_clips
from pipelines.vidtok_training.models import load_vidtok
from vtok.config import ConfigError, require
from vtok.vidtok import VidTok, metrics
from vtok.vidtok.losses.perceptual import load_lpips
from vtok.vidtok.model import lengthened

# Maps two sets of frames (T, 3, H, W) in [0, 1] to scores (T,).
Metric = Callable[[Tensor, Tensor], Tensor]
SETTINGS = (
    "config", "checkpoint", "fps", "height", "width", "tile", "tile_overlap", "read_long_video", "chunk",
    "upstream_compat",
)  # fmt: skip
BETTER = {"psnr": "higher", "ssim": "higher", "tiles": "higher", "lpips": "lower", "fvd": "lower"}


def evaluate(a: argparse.Namespace) -> None:
    """Runs the command ``evaluate.py vidtok``.

    Args:
        a: The arguments that ``evaluate.py`` parsed.

    Raises:
        ConfigError: An argument, the configuration or a file of weights is wrong.
        DataError: A video or the table of videos is wrong.
    """
    require(a.fps > 0, "--fps must be positive")
    device = distributed.device()
    model = load_vidtok(a.config, a.checkpoint).to(device)
    if a.compile:
        model.compile_blocks()
    factor = model.config.space_factor
    require(
        min(a.height, a.width) >= metrics.WINDOW and a.height % factor == a.width % factor == 0,
        f"--height and --width must be multiples of {factor} and at least {metrics.WINDOW}, not {a.height}x{a.width}",
    )
    require(model.is_causal or not a.read_long_video, "--read-long-video needs a causal VidTok")
    compatible = a.upstream_compat
    require(
        not compatible or (a.read_long_video and model.config.time == "causal_v1_1"),
        "--upstream-compat goes with --read-long-video and a v1.1 model",
    )
    measures: dict[str, Metric] = {"psnr": metrics.psnr, "ssim": metrics.ssim}
    if a.lpips:
        lpips = load_lpips(*a.lpips).to(device)
        measures["lpips"] = lambda x, y: lpips(2 * x - 1, 2 * y - 1)
    extractor = load_i3d(a.fvd).to(device) if a.fvd else None
    by_video, pairs = {}, []
    for video in list_videos(a.data, a.meta_path):
        if a.read_long_video:
            clips = long_reconstruction(model, video, a.fps, a.height, a.width, a.chunk, compatible)
        else:
            clips = reconstructions(model, video, a.fps, a.height, a.width, a.tile, a.tile_overlap)
        found = scores_of(clips, measures, extractor)
        by_video[str(video.relative_to(a.data))] = found.frames
        pairs += found.features
    settings = {name: str(getattr(a, name)) for name in SETTINGS}
    report = {"settings": settings} | summary(by_video)
    if extractor:
        require(len(pairs) >= 2, f"FVD needs at least two clips of {clip_length(model)} frames, found {len(pairs)}")
        report["mean"]["fvd"] = metrics.frechet_distance(*(torch.stack(side) for side in zip(*pairs)))
    with atomic_write(a.output) as file:
        file.write(json.dumps(report, indent=1).encode() + b"\n")
    print(as_table(report["mean"]))


def clip_length(model: VidTok) -> int:
    """Returns the frames per clip."""
    return 17 if model.is_causal else 16


class Clip(NamedTuple):
    """The real frames of a clip, without those that filled it up, (T, 3, H, W) in [0, 1].

    Attributes:
        original: The frames.
        reconstruction: Their reconstruction from whole frames.
        in_tiles: Their reconstruction from tiles, or ``None`` if it was not asked for.
        complete: Whether all frames of the clip are real.
    """

    original: Tensor
    reconstruction: Tensor
    in_tiles: Tensor | None
    complete: bool


@torch.no_grad()
def reconstructions(
    model: VidTok, video: Path, fps: float, height: int, width: int, tile: int | None = None, overlap: int = 0
) -> Iterator[Clip]:
    """Yields the clips of a video with their reconstructions.

    Args:
        model: The model.
        video: Path of the video.
        fps: Frames per second to sample.
        height: Pixels.
        width: Pixels.
        tile: Side of a tile in pixels, or ``None`` for whole frames only.
        overlap: Overlap of neighbouring tiles in pixels.

    Raises:
        DataError: The video cannot be read.
        ConfigError: The overlap is not smaller than the tile.
    """
    length = clip_length(model)

    def reconstruction(clip: Tensor, tile: int | None) -> Tensor:
        model.tile, model.tile_overlap = tile, overlap
        missing = length - clip.shape[2]
        return unit_range(model(lengthened(clip, 0, missing))[1][:, :, : clip.shape[2]])

    try:
        for clip in read_clips(video, fps, height, width, length)[1]:
            clip = clip.to(next(model.parameters()).device)
            in_tiles = reconstruction(clip, tile) if tile is not None else None
            yield Clip(unit_range(clip), reconstruction(clip, None), in_tiles, clip.shape[2] == length)
    except DataError as error:
        raise DataError(f"{video}: {error}") from error


@torch.no_grad()
def long_reconstruction(
    model: VidTok, video: Path, fps: float, height: int, width: int, chunk: int, compatible: bool = False
) -> Iterator[Clip]:
    """Yields the clips of a whole video's reconstruction.

    Args:
        model: A causal model.
        video: Path of the video.
        fps: Frames per second to sample.
        height: Pixels.
        width: Pixels.
        chunk: Frames that are encoded at once.
        compatible: Whether to decode overlapping chunks like the published code. The decoded video is then held whole.

    Raises:
        DataError: The video cannot be read.
    """
    length, device = clip_length(model), next(model.parameters()).device
    originals: list[Tensor] = []

    def chunks() -> Iterator[Tensor]:
        for part in parts:
            originals.append(unit_range(part))
            yield part.to(device)

    try:
        total, parts = read_clips(video, fps, height, width, chunk)
        if compatible:
            model.use_tiling, model.upstream_compat = True, True
            model.t_chunk_enc, model.t_chunk_dec = chunk, max(1, chunk // model.config.time_factor)
            outputs = iter([model(torch.cat(list(chunks()), dim=2))[1]])
        else:
            outputs = model.reconstruct(chunks(), total)
        pending: list[Tensor] = [unit_range(next(outputs)).cpu()]
        for output in outputs:
            pending.append(unit_range(output).cpu())
            while sum(map(len, pending)) >= length:
                yield paired(originals, pending, length, device, complete=True)
        while (left := sum(map(len, pending))) > 0:
            yield paired(originals, pending, min(length, left), device, complete=left >= length)
    except DataError as error:
        raise DataError(f"{video}: {error}") from error


def paired(originals: list[Tensor], pending: list[Tensor], count: int, device: torch.device, complete: bool) -> Clip:
    """Takes the first ``count`` frames out of both lists of frames."""
    taken = []
    for frames in (originals, pending):
        whole = torch.cat(frames)
        frames[:] = [whole[count:]]
        taken.append(whole[:count].to(device))
    return Clip(*taken, in_tiles=None, complete=complete)


class Scores(NamedTuple):
    """The scores of a video, on the CPU.

    Attributes:
        frames: By measure, the score of each frame, (frames,).
        features: I3D's features of each complete clip and of its reconstruction, (d,) each.
    """

    frames: dict[str, Tensor]
    features: list[tuple[Tensor, Tensor]]


@torch.no_grad()
def scores_of(
    clips: Iterator[Clip],
    measures: dict[str, Metric],
    extractor: torch.jit.ScriptModule | None = None,
) -> Scores:
    """Scores the clips of a video.

    Args:
        clips: The results of :func:`reconstructions`.
        measures: The measures, by name.
        extractor: I3D, or ``None`` for no features.
    """
    scores: dict[str, list[Tensor]] = defaultdict(list)
    features = []
    for clip in clips:
        for name, measure in measures.items():
            scores[name].append(measure(clip.original, clip.reconstruction).cpu())
        if clip.in_tiles is not None:
            scores["tiles"].append(metrics.psnr(clip.reconstruction, clip.in_tiles).cpu())
        if extractor and clip.complete:
            pair = (clip.original, clip.reconstruction)
            features.append(tuple(i3d_features(extractor, frames).cpu() for frames in pair))
    return Scores({name: torch.cat(parts) for name, parts in scores.items()}, features)


def load_i3d(path: Path) -> torch.jit.ScriptModule:
    """Loads I3D from the TorchScript file that is commonly used for FVD (``i3d_torchscript.pt``).

    Raises:
        ConfigError: The file is unreadable.
    """
    try:
        return torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(f"--fvd {path} cannot be read: it should be I3D as a TorchScript file") from error


def i3d_features(extractor: torch.jit.ScriptModule, frames: Tensor) -> Tensor:
    """Maps frames (T, 3, H, W) in [0, 1] to features (400,). I3D itself resizes to 224 x 224 and scales to [-1, 1]."""
    video = (frames * 255).transpose(0, 1).unsqueeze(0)
    return extractor(video, rescale=True, resize=True, return_features=True)[0]


def unit_range(x: Tensor) -> Tensor:
    """Maps a clip (1, 3, T, H, W) in [-1, 1] to frames (T, 3, H, W) in [0, 1]."""
    return (x[0].float().transpose(0, 1).clamp(-1, 1) + 1) / 2


def summary(by_video: dict[str, dict[str, Tensor]]) -> dict[str, dict]:
    """Returns the means over all frames, ``mean``, and over the frames of each video, ``videos``."""

    def means(scores: dict[str, Tensor]) -> dict[str, float]:
        return {"frames": len(scores["psnr"])} | {name: values.mean().item() for name, values in scores.items()}

    every = {name: torch.cat([scores[name] for scores in by_video.values()]) for name in next(iter(by_video.values()))}
    mean = {"videos": len(by_video)} | means(every)
    return {"mean": mean, "videos": {name: means(scores) for name, scores in by_video.items()}}


def as_table(mean: dict[str, float]) -> str:
    """Returns a table of the means over all frames."""
    lines = [f"{mean['videos']} videos, {mean['frames']} frames", f"{'measure':<8}{'mean':>9}  better"]
    return "\n".join(lines + [f"{name:<8}{mean[name]:>9.4f}  {BETTER[name]}" for name in BETTER if name in mean])
