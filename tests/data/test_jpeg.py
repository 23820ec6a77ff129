"""JPEGs that Pillow reads without an error although they are damaged, and sound ones of many makes."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from data_tools.errors import BadVideo
from data_tools.video.decode import validate

RANDOM = np.random.RandomState(0)
BLOCKS = Image.fromarray(np.kron(RANDOM.randint(0, 255, (12, 16, 3)), np.ones((8, 8, 1))).astype(np.uint8))
NOISE = Image.fromarray(RANDOM.randint(0, 256, (97, 131, 3)).astype(np.uint8))
WHITE = Image.new("RGB", (120, 90), "white")
HALF = Image.composite(NOISE.resize(WHITE.size), WHITE, Image.new("1", WHITE.size).resize(WHITE.size))
HALF.paste(NOISE.crop((0, 0, 120, 40)))
PICTURES = {"blocks": BLOCKS, "noise": NOISE, "white": WHITE, "half white": HALF, "one": Image.new("RGB", (1, 1))}


def encoded(image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, **({"format": "JPEG"} | options))
    return file.getvalue()


def by_ffmpeg(image, pix_fmt="yuvj420p") -> bytes:
    context = av.codec.Codec("mjpeg", "w").create("video")
    context.width, context.height, context.pix_fmt, context.time_base = *image.size, pix_fmt, 1
    frame = av.VideoFrame.from_image(image).reformat(format=pix_fmt)
    frame.pts = 0
    return b"".join(bytes(packet) for given in (frame, None) for packet in context.encode(given))


def pillow_reads(data: bytes) -> bool:
    Image.open(io.BytesIO(data)).load()
    return True


def zeros(data: bytes, at: float) -> bytes:
    start = int(len(data) * at)
    return data[:start] + bytes(60) + data[start + 60 :]


def cut(data: bytes, at: float) -> bytes:
    return data[: int(len(data) * at)] + b"\xff\xd9"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("blocks", {"quality": 90}),
        ("noise", {"quality": 90}),
        ("noise", {"quality": 90, "restart_marker_rows": 1}),
        ("noise", {"quality": 90, "progressive": True}),
    ],
)
def test_a_jpeg_that_was_cut_and_ended_is_refused(name, options):
    for at in (0.4, 0.5, 2 / 3):
        damaged = cut(encoded(PICTURES[name], **options), at)
        assert pillow_reads(damaged)
        with pytest.raises(BadVideo, match="bad_image: a second decoder"):
            validate(damaged)


def test_a_jpeg_with_zeros_in_its_middle_is_refused():
    damaged = zeros(encoded(BLOCKS, quality=90), 0.5)
    assert pillow_reads(damaged)
    with pytest.raises(BadVideo, match="its data ends before its picture"):
        validate(damaged)


def test_a_jpeg_that_has_lost_blocks_is_refused():
    """The last bytes of its data are of no use any more."""
    data = encoded(NOISE, quality=50)
    end = len(data) - 2
    with pytest.raises(BadVideo, match="its picture ends before its data"):
        validate(data[:end] + data[end - 400 :])


SOUND = [
    *({"quality": quality, "optimize": optimize} for quality in (1, 30, 75, 100) for optimize in (False, True)),
    *({"subsampling": kind, "optimize": True} for kind in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")),
    {"progressive": True},
    {"restart_marker_blocks": 3},
    {"restart_marker_rows": 1, "progressive": True},
    {"keep_rgb": True},
    {"exif": b"Exif\0\0" + bytes(range(256)) * 100},
    {"comment": b"\xff\xd9\xff\xda" * 50},
    {"format": "MPO", "save_all": True, "append_images": [BLOCKS]},
]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("name", PICTURES)
def test_sound_jpegs_of_many_makes_are_accepted(name, mode):
    for options in SOUND:
        if mode == "CMYK" and "keep_rgb" in options:
            continue
        data = encoded(PICTURES[name].convert(mode), **options)
        assert validate(data).codec == "jpeg", options


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("pix_fmt", ["yuvj420p", "yuvj422p", "yuvj444p"])
def test_jpegs_of_ffmpeg_are_accepted(name, pix_fmt):
    assert validate(by_ffmpeg(PICTURES[name], pix_fmt)).codec == "jpeg"


@pytest.mark.parametrize("name", PICTURES)
def test_what_writers_put_before_and_behind_the_end_is_accepted(name):
    data = encoded(PICTURES[name], optimize=True)
    begun, end = data[:-2], data[-2:]
    for more in (bytes(20), b"\xff" * 5, b"\x55\x66", b""):
        assert validate(begun + more + end).codec == "jpeg"
    for behind in (bytes(1000), data, b"\xff\xda\x00\x02junk"):
        assert validate(data + behind).codec == "jpeg"
