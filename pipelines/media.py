"""Videos and pictures out: frames (F, 3, H, W) ``uint8`` to an mp4, a GIF or a contact sheet."""

import io
from fractions import Fraction
from pathlib import Path

from PIL import Image
from torch import Tensor

from data_tools.encode import encode_mp4
from data_tools.shards import atomic_write

CRF = 16


def save_mp4(frames: Tensor, fps: float, path: Path) -> None:
    """Write an H.264 mp4; it appears under its name only when it is whole."""
    pictures = (frame.permute(1, 2, 0).numpy() for frame in frames.cpu())
    data = encode_mp4(pictures, Fraction(fps).limit_denominator(1001), CRF)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(data)


def as_image(frame: Tensor) -> Image.Image:
    """A (3, H, W) ``uint8`` frame as a picture."""
    return Image.fromarray(frame.permute(1, 2, 0).cpu().numpy())


def encode_gif(frames: Tensor, fps: float) -> bytes:
    """A GIF that plays for ever."""
    first, *others = map(as_image, frames)
    data = io.BytesIO()
    first.save(data, format="GIF", save_all=True, append_images=others, duration=1000 / fps, loop=0)
    return data.getvalue()


def save_contact_sheet(frames: Tensor, path: Path, columns: int = 8) -> None:
    """A PNG of all frames, row by row."""
    count, _, height, width = frames.shape
    sheet = Image.new("RGB", (min(count, columns) * width, -(-count // columns) * height))
    for index, picture in enumerate(map(as_image, frames)):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    sheet.save(path, format="PNG")
