"""Writes frames (F, 3, H, W) ``uint8`` as an mp4, a GIF or a contact sheet."""

import io
from fractions import Fraction
from pathlib import Path

from PIL import Image
from torch import Tensor

from data_tools.shards import atomic_write
from data_tools.video.encode import encode_mp4

CRF = 16  # x264's quality: lower is better


def save_mp4(frames: Tensor, fps: float, path: Path) -> None:
    """Writes an H.264 mp4; the file appears only when it is complete."""
    pictures = (frame.permute(1, 2, 0).numpy() for frame in frames.cpu())
    data = encode_mp4(pictures, Fraction(fps).limit_denominator(1001), CRF)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(data)


def as_image(frame: Tensor) -> Image.Image:
    """Returns a (3, H, W) ``uint8`` frame as a picture."""
    return Image.fromarray(frame.permute(1, 2, 0).cpu().numpy())


def encode_gif(frames: Tensor, fps: float) -> bytes:
    """Returns the bytes of a GIF that repeats for ever. Without dithering it has half the size."""
    first, *others = (as_image(frame).quantize(dither=Image.Dither.NONE) for frame in frames)
    data = io.BytesIO()
    first.save(data, format="GIF", save_all=True, append_images=others, duration=1000 / fps, loop=0)
    return data.getvalue()


def save_contact_sheet(frames: Tensor, path: Path, columns: int = 8) -> None:
    """Writes all frames as one PNG, row by row, ``columns`` frames in a row."""
    count, _, height, width = frames.shape
    sheet = Image.new("RGB", (min(count, columns) * width, -(-count // columns) * height))
    for index, picture in enumerate(map(as_image, frames)):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    sheet.save(path, format="PNG")
