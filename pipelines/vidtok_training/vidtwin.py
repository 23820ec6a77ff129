"""Reconstructs videos with a VidTwin."""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from data_tools.video.media import save_mp4
from pipelines.cli.config_files import read_yaml
from pipelines.engine import distributed
from pipelines.vidtok_training.clips import read_clips, to_pixels
from vtok.vidtok import metrics
from vtok.vidtok.model import lengthened
from vtok.vidtwin import VidTwin, load_model


def write_reconstruction(a: argparse.Namespace) -> None:
    """Runs the command ``reconstruct_vidtwin.py``.

    Args:
        a: The arguments that ``reconstruct_vidtwin.py`` parsed.

    Raises:
        ConfigError: The configuration or the checkpoint is wrong.
        DataError: A video cannot be read.
    """
    model = load_model(a.checkpoint, **(read_yaml(a.config) if a.config else {})).eval().to(distributed.device())
    columns = reconstruct(model, a.input, a.fps, a.dynamics_of)
    name = f"with_dynamics_of_{a.dynamics_of.stem}" if a.dynamics_of else "reconstruction"
    for name, frames in ((name, columns[-1]), ("side_by_side", torch.cat(columns, dim=3))):
        path = a.output_dir / f"{a.input.stem}_{name}.mp4"
        save_mp4(frames, a.fps, path)
        print(f"{path}: {len(frames)} frames at {a.fps:g} per second")
    if not a.dynamics_of:
        original, reconstruction = (frames / 255 for frames in columns)
        psnr, ssim = (score(original, reconstruction).mean() for score in (metrics.psnr, metrics.ssim))
        print(f"PSNR {psnr:.2f} dB, SSIM {ssim:.4f}")


@torch.no_grad()
def reconstruct(model: VidTwin, video: Path, fps: float, dynamics_of: Path | None = None) -> list[Tensor]:
    """Reconstructs a video clip by clip; the last clip is continued by copies of its last frame.

    Args:
        model: The model.
        video: Path of the video.
        fps: Frames per second to sample.
        dynamics_of: Another video, whose dynamics replace the video's own. The shorter of the two sets the length.

    Returns:
        The video, the other one if there is one, and the reconstruction, (T, 3, H, W) ``uint8`` each.

    Raises:
        DataError: A video cannot be read.
    """
    frames, side = model.config.frames, model.config.side
    sources = [video] if dynamics_of is None else [video, dynamics_of]
    read = [read_clips(source, fps, side, side, frames) for source in sources]
    total = min(length for length, _ in read)
    columns: list[list[Tensor]] = [[] for _ in range(len(sources) + 1)]
    for clips in zip(*(clips for _, clips in read)):
        latents = [model.encode(lengthened(clip, 0, frames - clip.shape[2]).to(distributed.device())) for clip in clips]
        for column, clip in zip(columns, [*clips, model.decode(latents[0].with_dynamics_of(latents[-1]))]):
            column.append(to_pixels(clip))
    return [torch.cat(column)[:total] for column in columns]
