"""Images, as Pillow shows them: turned by their EXIF orientation, and converted to RGB.

CMYK, grey and palettes become RGB, and an alpha channel is left out, as the image processors of published models do.
What Pillow would show wrong is refused: more than 8 bits a channel, which it clips, animations, of which it shows the
first picture only, and damaged JPEGs and GIFs, of which it makes up the rest (see `jpeg` and `gif`). A file may be a
few bytes and still claim billions of pixels: the header is read first. A GIF of several pictures is a video.
"""

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from data_tools.errors import BadVideo
from data_tools.video.container import Source, content
from data_tools.video.facts import IMAGE, VideoFacts
from data_tools.video.gif import SIGNATURES, check_blocks, is_still
from data_tools.video.jpeg import check_jpeg

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
MAX_PIXELS = 100_000_000
# A JPEG of a phone (MPO) holds further pictures behind the one that every program shows.
MPO = "MPO"
CHECKS = {"jpeg": check_jpeg, "gif": check_blocks}  # formats in which Pillow overlooks damage
MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
ORIENTATION = 0x0112  # EXIF's tag
# EXIF's orientation -> (degrees counter-clockwise, whether it is mirrored left to right before that).
TURNS = {2: (0, True), 3: (180, False), 4: (180, True), 5: (90, True), 6: (270, False), 7: (270, True), 8: (90, False)}


def is_image(source: Source) -> bool:
    """Whether the file begins as a JPEG, PNG, WebP or BMP does, or is a GIF of one picture."""
    if isinstance(source, bytes):
        head = source[:12]
    else:
        path = Path(source)
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(12)
    if head.startswith(SIGNATURES):
        return is_still(content(source))
    webp = head[:4] == b"RIFF" and head[8:] == b"WEBP"
    return webp or head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"))


def image_facts(source: Source) -> VideoFacts:
    """The facts of an image: one frame, rate and duration 0.

    Raises:
        BadVideo: it is damaged or of a kind that is refused.
    """
    image, codec, (rotation, mirrored) = _loaded(source)
    if check := CHECKS.get(codec):
        check(content(source))
    return VideoFacts(
        width=image.width,
        height=image.height,
        fps=0.0,
        frames=1,
        duration=0.0,
        codec=codec,
        rotation=rotation,
        mirrored=mirrored,
        interlaced=False,
        pix_fmt=image.mode,
        transfer="sdr",
        entry=IMAGE,
    )


def picture_of(source: Source) -> torch.Tensor:
    """The picture, uint8 RGB (H, W, 3), of an image that `image_facts` has found sound.

    Raises:
        BadVideo: as `image_facts` does, but for the damage that Pillow does not notice.
    """
    return torch.from_numpy(np.array(_loaded(source)[0].convert("RGB")))


def _loaded(source: Source) -> tuple[Image.Image, str, tuple[int, bool]]:
    """(the image in its own mode as it is shown, its format in lower case, its entry of `TURNS`). Raises BadVideo."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images, and of damage that it then raises
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
                _check(image)
                codec = "jpeg" if image.format == MPO else str(image.format).lower()
                turn = TURNS.get(image.getexif().get(ORIENTATION, 1), (0, False))
                image.load()
                return ImageOps.exif_transpose(image), codec, turn
    except BadVideo:
        raise
    except Image.DecompressionBombError as error:
        raise BadVideo("too_large", f"the image claims more than {MAX_PIXELS:,} pixels: scale it down") from error
    except Exception as error:  # Pillow's plugins raise errors of many kinds at damage
        raise BadVideo("bad_image", f"{type(error).__name__}: {error}") from error


def _check(image: Image.Image) -> None:
    """Raise BadVideo for an image, not loaded yet, that is refused."""
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise BadVideo("too_large", f"the image claims {size} pixels, more than {MAX_PIXELS:,}: scale it down")
    if image.format != MPO and getattr(image, "n_frames", 1) > 1:
        raise BadVideo("animated", "an image of several pictures: make a video of it")
    if image.mode not in MODES:
        raise BadVideo("bit_depth", f"pixels of mode {image.mode}: save the image with 8 bits a channel")
