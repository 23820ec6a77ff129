"""Reads video files as clips for a VidTok, (1, 3, T, H, W) in [-1, 1], and turns such clips into pixels."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from data_tools.errors import DataError
from data_tools.video.decode import validate
from data_tools.video.views import View, make_views


def read_clips(video: Path, fps: float, height: int, width: int, length: int) -> tuple[int, Iterator[Tensor]]:
    """Cuts a video into clips.

    Frames are resized to cover ``height`` x ``width`` and cropped at the centre.

    Args:
        video: Path of the video.
        fps: Frames per second to sample.
        height: Pixels.
        width: Pixels.
        length: Frames per clip; the last clip may be shorter.

    Returns:
        The number of frames of the whole video, and its clips, (1, 3, T, H, W) in [-1, 1].

    Raises:
        DataError: The video cannot be read.
    """
    if not video.is_file():
        raise DataError(f"no such video: {video}")
    duration = validate(video).duration
    total = max(1, round(duration * fps))

    def clips() -> Iterator[Tensor]:
        for start in range(0, total, length):
            view = View(fps, min(length, total - start), height, width)
            yield to_model(make_views(video, duration, view, None, start / fps).frames)

    return total, clips()


def to_model(frames: Tensor) -> Tensor:
    """Maps frames (T, 3, H, W) ``uint8`` to a clip (1, 3, T, H, W) in [-1, 1]."""
    return frames.transpose(0, 1).unsqueeze(0) / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """Maps a clip (1, 3, T, H, W) to frames (T, 3, H, W) ``uint8`` on the CPU; values outside [-1, 1] are clamped."""
    return ((x[0].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).transpose(0, 1).cpu()
