"""Images and texts in the place of videos: from files, tables and tars to shards."""

import io
import json
import tarfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.errors import BadVideo, DataError
from data_tools.inspect.index import index_shards
from data_tools.inspect.show import write_report
from data_tools.inspect.stats import dataset_stats
from data_tools.inspect.verify import verify_shards
from data_tools.packing import build_shards
from data_tools.packing.prepare import Recipe
from data_tools.packing.sources import discover
from data_tools.packing.transcode import Encoding
from data_tools.shapes import render_clips
from data_tools.shards import ShardReader
from data_tools.video import image as images
from data_tools.video.decode import decode, validate
from data_tools.video.facts import IMAGE

RGB = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)


def encoded(image, form="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def picture(data: bytes) -> np.ndarray:
    [(indices, frame)] = decode(data, [0.0, 0.5], entry=IMAGE)
    assert indices == [0, 1] and frame.dtype == torch.uint8
    return frame.numpy()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[images.ORIENTATION] = orientation
    return tags


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_every_mode_looks_as_pillow_shows_it(mode):
    image = Image.fromarray(RGB).convert(mode)
    data = encoded(image, "JPEG", quality=95) if mode == "CMYK" else encoded(image)
    facts = validate(data)
    assert (facts.width, facts.height, facts.frames, facts.duration, facts.entry) == (36, 24, 1, 0.0, IMAGE)
    assert np.array_equal(picture(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
@pytest.mark.parametrize("form", ["BMP", "GIF"])
def test_a_bmp_and_a_gif_of_one_picture_are_images(form, mode):
    data = encoded(Image.fromarray(RGB).convert(mode), form)
    facts = validate(data)
    assert (facts.width, facts.height, facts.frames, facts.entry, facts.codec) == (36, 24, 1, IMAGE, form.lower())
    assert np.array_equal(picture(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_a_gif_of_two_pictures_is_a_video():
    facts = validate(animation("GIF"))
    assert facts.frames == 2 and facts.entry != IMAGE


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_says(form, orientation):
    """The facts say so as they do of a video: mirrored left to right, then turned counter-clockwise."""
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(Image.fromarray(RGB), form, exif=exif(orientation), **options)
    coded = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    facts = validate(data)
    shown = np.rot90(coded[:, ::-1] if facts.mirrored else coded, facts.rotation // 90)
    assert np.array_equal(picture(data), shown)
    assert (facts.height, facts.width) == shown.shape[:2] and facts.codec == form.lower()
    assert (facts.rotation, facts.mirrored) != (0, False) or orientation == 1


def animation(form: str) -> bytes:
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    return encoded(first, form, save_all=True, append_images=[second], duration=100)


def bomb() -> bytes:
    """A PNG of a few bytes whose header claims 60000 x 60000 pixels."""
    data = bytearray(encoded(Image.fromarray(RGB)))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


DEEP = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
REFUSED = {
    "16 bits": (encoded(DEEP), "bit_depth"),
    "animated png": (animation("PNG"), "animated"),
    "animated webp": (animation("WEBP"), "animated"),
    "bomb": (bomb(), "too_large"),
    "cut jpeg": (encoded(Image.fromarray(RGB), "JPEG")[:-200], "bad_image"),
    "cut png": (encoded(Image.fromarray(RGB))[:-200], "bad_image"),
    "cut bmp": (encoded(Image.fromarray(RGB), "BMP")[:-200], "bad_image"),
    "cut gif": (encoded(Image.fromarray(RGB), "GIF")[:-20], "truncated"),
    "avif": (encoded(Image.fromarray(RGB), "AVIF"), "image_format"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "image_format"),
    "tiff": (encoded(Image.fromarray(RGB), "TIFF"), "not_a_video"),
    "png in name": (b"\x89PNG\r\n\x1a\n" + bytes(50), "bad_image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_image_that_would_be_shown_wrong_is_refused(case):
    data, reason = REFUSED[case]
    with pytest.raises(BadVideo) as problem:
        validate(data)
    assert problem.value.reason == reason


def test_an_image_just_above_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 24 * 36 - 1)
    with pytest.raises(BadVideo, match="too_large"):
        validate(encoded(Image.fromarray(RGB)))


TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"}, {"role": "user", "content": "And 2 + 2?"},
        {"role": "assistant", "content": "4"}]  # fmt: skip
ABOUT = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "Noise."},
         {"from": "human", "value": "In colour?"}, {"from": "gpt", "value": "Yes."}]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two clips, two images, and tables as LLaVA, LLaVA-Video and ShareGPT4Video publish them."""
    folder = tmp_path_factory.mktemp("mixed")
    render_clips(folder, 2, seed=0, frames=16, size=32)
    (folder / "captions.csv").unlink()
    Image.fromarray(RGB).save(folder / "a.jpg")
    Image.fromarray(RGB).save(folder / "b.png")
    rows = [
        {"id": 1, "image": "a.jpg", "conversations": ABOUT},
        {"id": 2, "video": "000.mp4", "data_source": "0_30_s_academic_v0_1", "conversations": ABOUT},
        {"id": 3, "conversations": ABOUT[2:]},
        {"id": 4, "messages": TALK},
        {"id": 5, "conversations": ABOUT},
        {"id": 6, "image": ["a.jpg", "b.png"], "conversations": ABOUT},
        {"video_id": "x", "video_path": "001.mp4", "zip_folder": "x.zip",
         "captions": [{"idx": "0", "content": "A part."}, {"idx": "-1", "content": "The whole."}]},
    ]  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("shards") / "out"
    done = build_shards(folder / "rows.json", output, 3, progress=False)
    assert (done.packed, done.reasons) == (5, {"bad_row": 1, "bad_conversations": 1})
    return output


def test_published_tables_are_packed_as_they_are(shards):
    reader = ShardReader(shards)
    samples = [reader.read(row) for row in range(len(reader))]
    assert [sample.extension for sample in samples] == [".jpg", ".mp4", "", "", ".mp4"]
    assert reader.rows["frames"].tolist() == [1, 16, 0, 0, 16]
    assert [len(sample.meta.get("conversations", [])) for sample in samples] == [2, 2, 1, 2, 0]
    assert samples[3].meta["conversations"] == [["1 + 1?", "2"], ["And 2 + 2?", "4"]]
    assert samples[4].meta["caption"] == "The whole." and samples[1].meta["data_source"] == "0_30_s_academic_v0_1"
    assert np.array_equal(picture(samples[0].video).shape, RGB.shape)


def test_mixed_shards_are_verified_shown_and_counted(shards, tmp_path):
    assert verify_shards(shards, decode=True).faults == []
    assert write_report(shards, tmp_path / "page.html") == 5
    text = (tmp_path / "page.html").read_text()
    assert text.index("1 + 1?") < text.index("And 2 + 2?") < text.index('<p class="answer">4</p>')
    assert '<p class="caption"></p>' not in text  # a text has no caption
    assert dataset_stats(shards)["kinds"] == {"video": 2, "text": 2, "image": 1}


def test_mixed_shards_can_be_packed_again(shards, tmp_path):
    """Images and texts keep their bytes where videos are re-encoded."""
    build_shards(shards, tmp_path / "again", progress=False, recipe=Recipe(Encoding(short_side=16)))
    old, new = ShardReader(shards), ShardReader(tmp_path / "again")
    assert new.rows["frames"].tolist() == [1, 16, 0, 0, 16]
    assert new.read(0).video == old.read(0).video and new.read(1).video != old.read(1).video
    assert new.read(2).meta["conversations"] == old.read(2).meta["conversations"]


def test_tars_of_others_with_images_and_texts(folder, tmp_path):
    files = {
        "0.jpg": (folder / "a.jpg").read_bytes(), "0.txt": b"An image.",
        "1.mp4": (folder / "000.mp4").read_bytes(), "1.jpg": (folder / "a.jpg").read_bytes(), "1.txt": b"A clip.",
        "2.json": json.dumps({"messages": TALK}).encode(),
        "3.png": (folder / "b.png").read_bytes(), "3.cls": b"7", "3.json": json.dumps({"caption": "Two."}).encode(),
        "4.json": json.dumps({"conversations": ABOUT}).encode(),
    }  # fmt: skip
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    done = index_shards(tmp_path)
    assert (done.samples, done.reasons) == (4, {"no_video": 1})
    reader = ShardReader(tmp_path)
    assert reader.rows["frames"].tolist() == [1, 16, 0, 1]
    assert [reader.read(row).extension for row in range(4)] == [".jpg", ".mp4", "", ".png"]
    assert reader.read(2).meta["facts"]["frames"] == 0
    assert verify_shards(tmp_path, decode=True).faults == []


def test_images_lie_beside_their_texts_or_in_a_column_of_that_name(folder, tmp_path):
    for name in ("one.jpg", "two.bmp"):
        Image.fromarray(RGB).save(tmp_path / name)
    (tmp_path / "one.txt").write_text("One.")
    (tmp_path / "two.json").write_text('{"caption": "Two."}')
    assert [item.load().meta["caption"] for item in discover(tmp_path)] == ["One.", "Two."]
    (tmp_path / "captions.csv").write_text("image,caption\none.jpg,First.\ntwo.bmp,Second.\n")
    source = discover(tmp_path)
    assert [source[n].load().meta["caption"] for n in range(2)] == ["First.", "Second."]
    assert validate(source[0].load().video).codec == "jpeg"


def test_a_split_divides_texts(tmp_path):
    rows = [{"messages": TALK}] * 40
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    build_shards(tmp_path / "rows.jsonl", tmp_path / "out", progress=False, val_share=0.3)
    assert len(ShardReader(tmp_path / "out" / "val")) > 2


def test_a_table_without_any_known_column_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"clip": "a.mp4", "caption": "A."}')
    with pytest.raises(DataError, match="--video-column"):
        discover(tmp_path / "rows.jsonl")
