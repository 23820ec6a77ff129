"""Folders of frames: each picture as an image is read."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from data_tools.packing import build_shards
from data_tools.packing.sources import discover
from data_tools.shards import ShardReader
from data_tools.video.decode import whole_frames

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def encoded(image, form="JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def write_frames(folder, frames):
    """A clip of frames, given as {name: bytes}."""
    (folder / "frames").mkdir(parents=True)
    (folder / "caption.txt").write_text("A clip.")
    for name, data in frames.items():
        (folder / "frames" / name).write_bytes(data)


def loaded(folder):
    """The frames of the only clip, (F, H, W, 3), as they are packed."""
    (item,) = discover(folder)
    return np.stack([frame.to_ndarray(format="rgb24") for _, frame in whole_frames(item.load().video)])


def test_a_damaged_frame_costs_its_clip(tmp_path):
    """As a damaged image does."""
    whole = encoded(NOISE)
    for name, damaged in (("cut", whole[: len(whole) // 2]), ("deep", encoded(Image.new("I;16", (64, 48)), "PNG"))):
        write_frames(tmp_path / "in" / name, {"0.jpg": whole, "1.jpg": damaged, "2.jpg": whole})
    write_frames(tmp_path / "in" / "whole", {f"{number}.jpg": whole for number in range(3)})
    assert build_shards(tmp_path / "in", tmp_path / "out", progress=False).packed == 1
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").open()]
    assert {line["path"]: line["reason"] for line in lines} == {"cut": "bad_image", "deep": "bit_depth"}
    assert all("1.jpg" in line["detail"] for line in lines)
    assert ShardReader(tmp_path / "out").read(0).meta["path"] == "whole"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_frame_is_turned_as_its_exif_says(tmp_path, form):
    tags = Image.Exif()
    tags[0x112] = 6
    lying = Image.fromarray(np.repeat(np.array([[40, 200]], np.uint8), 32, axis=1).repeat(48, axis=0))
    write_frames(tmp_path / "a", {f"{number}.jpg": encoded(lying.convert("RGB"), form, exif=tags) for number in (0, 1)})
    frames = loaded(tmp_path)
    assert frames.shape == (2, 64, 48, 3)
    assert frames[:, 8:24].mean() == pytest.approx(40, abs=6) and frames[:, 40:56].mean() == pytest.approx(200, abs=6)


@pytest.mark.parametrize("form", ["BMP", "TIFF", "PPM"])
def test_frames_of_other_formats_are_read(tmp_path, form):
    grey = Image.new("RGB", (32, 32), (90, 90, 90))
    write_frames(tmp_path / "a", {f"{number}.{form.lower()}": encoded(grey, form) for number in (0, 1)})
    assert loaded(tmp_path).mean() == pytest.approx(90, abs=4)
