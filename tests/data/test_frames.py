"""Folders of frames: each picture as an image is read."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.errors import BadVideo
from data_tools.packing import build_shards
from data_tools.packing.sources import discover
from data_tools.packing.sources.natural import naturally_sorted
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
    for name, damaged in (
        ("cut", whole[: len(whole) // 2]),
        ("deep", encoded(Image.new("I;16", (64, 48)), "PNG")),
        ("ended", whole[: len(whole) // 2] + b"\xff\xd9"),
    ):
        write_frames(tmp_path / "in" / name, {"0.jpg": whole, "1.jpg": damaged, "2.jpg": whole})
    write_frames(tmp_path / "in" / "whole", {f"{number}.jpg": whole for number in range(3)})
    assert build_shards(tmp_path / "in", tmp_path / "out", progress=False).packed == 1
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").open()]
    assert {line["path"]: line["reason"] for line in lines} == {
        "cut": "bad_image",
        "ended": "bad_image",
        "deep": "bit_depth",
    }
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


@pytest.mark.parametrize(
    "names",
    [
        "0001.jpg 0002.jpg 0003.jpeg 0004.JPG",
        "0.jpg 0.5.jpg 1.jpg",
        "0.25.jpg 0.5.jpg 0.75.jpg 1.0.jpg 10.0.jpg",
        "1.1.jpg 1.2.jpg 1.9.jpg 1.10.jpg 1.11.jpg",
        "frame_1_t1000.jpg frame_2_t100.jpg frame_3_t10.jpg frame_4_t1.jpg",
        "frame_8.png frame_9.jpg frame_10.png frame_100.jpg",
        "shot2_9.jpg shot2_10.jpg shot10_1.jpg",
        "IMG_1.jpg img_2.jpg IMG_3.jpg",
        "a.jpg b.jpg ba.jpg c.jpg",
        "9.jpg 099.jpg 100.jpg",
        "1700000000123456789.jpg 1700000000123456790.jpg",
    ],
)
def test_frames_are_in_the_order_of_their_numbers(names):
    paths = [Path(name) for name in names.split()]
    assert naturally_sorted(reversed(paths)) == naturally_sorted(paths) == paths


def test_the_order_does_not_depend_on_endings(tmp_path):
    shades = {"0001.jpg": 20, "0002.jpg": 80, "0003.jpeg": 140, "0004.png": 200}
    grey = {name: Image.new("RGB", (32, 32), (shade,) * 3) for name, shade in shades.items()}
    forms = {".png": "PNG"}
    write_frames(tmp_path / "a", {name: encoded(one, forms.get(name[4:], "JPEG")) for name, one in grey.items()})
    assert loaded(tmp_path).mean(axis=(1, 2, 3)) == pytest.approx([20, 80, 140, 200], abs=4)


def test_files_that_are_no_pictures_are_left_out(tmp_path):
    grey = encoded(Image.new("RGB", (32, 32), (90, 90, 90)))
    others = ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.jpg", "times.txt", "ffmpeg.log", "SHA256SUMS")
    write_frames(tmp_path / "a", {"0.jpg": grey, "1.JPEG": grey, "2": grey} | dict.fromkeys(others, b"no picture"))
    assert len(loaded(tmp_path)) == 3


@pytest.mark.parametrize("twins", [("f_0001.png", "f_0001.jpg"), ("1.jpg", "1.JPG"), ("1.jpg", "1")])
def test_frames_that_a_conversion_left_twice_cost_their_clip(tmp_path, twins):
    grey = encoded(Image.new("RGB", (32, 32)))
    write_frames(tmp_path / "in" / "twice", dict.fromkeys(("f_0000.png", *twins), grey))
    write_frames(tmp_path / "in" / "whole", dict.fromkeys(("0.25", "0.5", "1.0.jpg", "1.5.jpg"), grey))
    done = build_shards(tmp_path / "in", tmp_path / "out", progress=False)
    assert (done.packed, done.reasons) == (1, {"same_frame": 1})
    (line,) = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").open()]
    assert "are one frame: delete one of them" in line["detail"] and all(name in line["detail"] for name in twins)


@pytest.mark.parametrize("empty", ["null", '""', "NaN"])
def test_an_empty_rate_is_none(tmp_path, empty):
    grey = encoded(Image.new("RGB", (32, 32)))
    write_frames(tmp_path / "in" / "a", {"0.jpg": grey, "1.jpg": grey})
    (tmp_path / "in" / "a" / "meta.json").write_text(f'{{"fps": {empty}}}')
    build_shards(tmp_path / "in", tmp_path / "out", progress=False)
    assert ShardReader(tmp_path / "out").read(0).meta["facts"]["fps"] == 24


def test_a_picture_that_cannot_be_read_is_not_left_out(tmp_path):
    grey = encoded(Image.new("RGB", (32, 32)))
    for name in ("1.jpg", "1.exr", "1.heic"):
        write_frames(tmp_path / name, {"0.jpg": grey, "2.jpg": grey, name: b"no picture"})
        with pytest.raises(BadVideo, match=f"{name} cannot be read as a picture"):
            next(item for item in discover(tmp_path) if item.name == name).load()


def test_frame_folders_lie_at_any_depth(tmp_path):
    grey = {f"{number}.jpg": encoded(Image.new("RGB", (32, 32))) for number in (0, 1)}
    for name in ("b", "part1/a", "part1/b", "part2/x/c"):
        write_frames(tmp_path / "in" / name, grey)
    write_frames(tmp_path / "in" / "b" / "inside", grey)  # belongs to b
    (tmp_path / "in" / "part2" / "none" / "frames").mkdir(parents=True)
    (tmp_path / "in" / "part1" / "link").symlink_to(tmp_path / "in" / "part2")
    described = tmp_path / "in" / "pictures" / "frames"
    described.mkdir(parents=True)
    (described / "cat.jpg").write_bytes(grey["0.jpg"])
    (described / "cat.txt").write_text("A cat.")
    done = build_shards(tmp_path / "in", tmp_path / "in" / "out", progress=False)
    reader = ShardReader(tmp_path / "in" / "out")
    assert [reader.read(row).meta["path"] for row in range(len(reader))] == [
        "b", "part1/a", "part1/b", "part1/link/x/c", "part2/x/c", "pictures/frames/cat.jpg"
    ]  # fmt: skip
    assert done.reasons == {"no_caption": 2}
    assert build_shards(tmp_path / "in", tmp_path / "in" / "out", progress=False) == done
