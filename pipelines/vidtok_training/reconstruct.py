"""Reconstructs videos with a VidTok."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from data_tools.video.media import save_mp4
from pipelines.engine import distributed
from pipelines.vidtok_training.clips import read_clips, to_pixels
from pipelines.vidtok_training.models import in_tiles, load_vidtok
from vtok.config import require
from vtok.vidtok import VidTok
from vtok.vidtok.model import lengthened


def write_reconstruction(a: argparse.Namespace) -> None:
    """Runs the command ``reconstruct.py``.

    Args:
        a: The arguments that ``reconstruct.py`` parsed.

    Raises:
        ConfigError: The options contradict each other, or the model does not support them.
        DataError: The video cannot be read.
    """
    model = load_vidtok(a.config, a.checkpoint).to(distributed.device())
    if a.compile:
        model.compile_blocks()
    if a.tile is not None:
        in_tiles(model, a.tile, a.tile_overlap)
    original, reconstruction = reconstruct(
        model, a.input, a.fps, a.height, a.width, a.chunk, a.read_long_video, a.pad_gen_frames
    )
    for name, frames in (
        ("reconstruction", reconstruction),
        ("side_by_side", torch.cat([original, reconstruction], dim=3)),
    ):
        path = a.output_dir / f"{a.input.stem}_{name}.mp4"
        save_mp4(frames, a.fps, path)
        print(f"{path}: {len(frames)} frames at {a.fps:g} per second")


def one_by_one(model: VidTok, clips: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yields the reconstruction of each clip by itself; clips are (1, 3, T, H, W)."""
    return (model(clip)[1] for clip in clips)


def after_generated(model: VidTok, clips: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yields the reconstruction of each clip, encoded after the last f - 1 frames of the previous reconstruction.

    A causal model puts f - 1 copies of the first frame before a clip. Here the previous reconstruction replaces these
    copies, except for the first clip.

    Args:
        model: A causal model.
        clips: The clips, (1, 3, T, H, W) each.
    """
    factor, past = model.config.time_factor, None
    for clip in clips:
        if past is None:
            reconstruction = model(clip)[1]
            past = lengthened(reconstruction, factor - 1, 0)
        else:
            joined = torch.cat([past, clip], dim=2)
            joined = lengthened(joined, -joined.shape[2] % factor, 0)
            reconstruction = model.decode(model.encode(joined))[:, :, -clip.shape[2] :]
            past = torch.cat([past, reconstruction], dim=2)
        past = past[:, :, past.shape[2] - (factor - 1) :].clamp(-1, 1)
        yield reconstruction


@torch.no_grad()
def reconstruct(
    model: VidTok,
    video: Path,
    fps: float,
    height: int,
    width: int,
    chunk: int,
    long: bool = False,
    pad_generated: bool = False,
) -> tuple[Tensor, Tensor]:
    """Returns the video and its reconstruction, (T, 3, height, width) ``uint8`` each.

    Args:
        model: The model.
        video: Path of the video.
        fps: Frames per second to sample.
        height: Pixels.
        width: Pixels.
        chunk: Frames per clip (a causal model takes one more), or frames per chunk of a long video.
        long: Whether the whole video is one clip, reconstructed chunk by chunk.
        pad_generated: Whether to continue from the previous reconstruction; see :func:`after_generated`.

    Raises:
        DataError: The video cannot be read.
        ConfigError: The options contradict each other, or the model does not support them.
    """
    require(
        model.is_causal or not (long or pad_generated), "--read-long-video and --pad-gen-frames need a causal VidTok"
    )
    require(not (long and pad_generated), "choose one of --read-long-video and --pad-gen-frames")
    require(not long or model.tile is None, "choose one of --read-long-video and --tile")
    require(chunk >= 1 and fps > 0, "--chunk must be at least 1 and --fps positive")
    factor = model.config.space_factor
    require(
        min(height, width) >= factor and height % factor == width % factor == 0,
        f"--height and --width must be multiples of {factor}, not {height}x{width}",
    )
    length = chunk + 1 if model.is_causal and not long else chunk
    frames, clips = read_clips(video, fps, height, width, length)
    device, originals = distributed.device(), []

    def inputs() -> Iterator[Tensor]:
        for clip in clips:
            originals.append(to_pixels(clip))
            yield clip.to(device)

    if long:
        outputs = model.reconstruct(inputs(), frames)
    else:
        outputs = after_generated(model, inputs()) if pad_generated else one_by_one(model, inputs())
    reconstructions = [to_pixels(output) for output in outputs]
    return torch.cat(originals), torch.cat(reconstructions)
