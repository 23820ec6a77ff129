"""Clips are shown as players show them, when they are read and when they are encoded anew."""

import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from data_tools.errors import BadVideo
from data_tools.packing.prepare import Recipe, prepare
from data_tools.packing.sources import Clip
from data_tools.packing.transcode import Encoding, transcode
from data_tools.video.decode import decode, validate
from data_tools.video.display import orientation, with_known_colours
from data_tools.video.hdr import tone_mapped
from support.encoded import encode, ffmpeg, needs_ffmpeg, shown_by_ffmpeg

CORNERS = {(0, 0): (255, 0, 0), (0, 1): (0, 255, 0), (1, 0): (0, 0, 255), (1, 1): (255, 255, 255)}
HDR = "-c:v libx265 -pix_fmt yuv420p10le -x265-params log-level=none:colorprim=bt2020:colormatrix=bt2020nc:transfer="
ONE_SECOND = "testsrc2=s=96x64:r=12:d=1"


def quarters(path, rotation=0, mirrored=False, stretch=None, tags=None):
    """Four frames of 96 x 64 in quarters of the colours `CORNERS`."""
    picture = np.zeros((64, 96, 3), np.uint8)
    for (row, column), colour in CORNERS.items():
        picture[32 * row : 32 * row + 32, 48 * column : 48 * column + 48] = colour
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=12, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p"
        stream.set_display_rotation(rotation, hflip=mirrored)
        if stretch:
            stream.codec_context.sample_aspect_ratio = stretch
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        for n in range(4):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format="yuv444p", dst_colorspace=(tags or {}).get("colorspace"))
            frame.pts, frame.time_base = n, Fraction(1, 12)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def first(source):
    ((_, picture),) = decode(source, [0.0])
    return picture.numpy().astype(int)


def tags_of(video, tmp_path):
    """(matrix, sample aspect ratio) in the headers of a clip."""
    (tmp_path / "tagged.mp4").write_bytes(video)
    entries = ["-select_streams", "v:0", "-show_entries", "stream=color_space,sample_aspect_ratio", "-of", "csv=p=0"]
    told = subprocess.run(["ffprobe", "-v", "quiet", *entries, tmp_path / "tagged.mp4"], capture_output=True, text=True)
    ratio, matrix = told.stdout.strip().split(",")
    return matrix, ratio


@needs_ffmpeg
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_all_eight_orientations(tmp_path, rotation, mirrored):
    clip = quarters(tmp_path / "clip.mp4", rotation, mirrored)
    facts, expected = validate(clip), shown_by_ffmpeg(clip)[0]
    assert expected.shape == (facts.height, facts.width, 3) == ((96, 64, 3) if rotation % 180 else (64, 96, 3))
    assert facts.mirrored == mirrored
    for source in (clip, transcode(clip, Encoding(crf=4))):
        assert np.abs(first(source) - expected).mean() < 4


def test_reading_an_orientation_leaves_no_cycle_that_keeps_the_frame(tmp_path):
    with av.open(str(quarters(tmp_path / "clip.mp4", rotation=90))) as file:
        frame = next(file.decode(video=0))
    before = sys.getrefcount(frame)
    assert orientation(frame).rotation == 90 and sys.getrefcount(frame) == before


@pytest.mark.parametrize("ratio, width", [("2:1", 192), ("64:45", 137), ("8:9", 85), ("1:1", 96)])
def test_pixels_become_square(tmp_path, ratio, width):
    stretch = Fraction(ratio.replace(":", "/"))
    clip = quarters(tmp_path / "clip.mp4", stretch=stretch)
    assert (validate(clip).width, validate(clip).height) == (width, 64)
    picture = first(clip)
    assert picture.shape == (64, width, 3)
    assert np.abs(picture[16, width // 2 + 8] - (0, 255, 0)).max() < 40
    small = transcode(clip, Encoding(short_side=32, crf=4))
    assert validate(small).width == pytest.approx(width / 2, abs=1) and validate(small).height == 32
    turned = quarters(tmp_path / "turned.mp4", rotation=90, stretch=stretch)
    assert (validate(turned).width, validate(turned).height) == (64, width)


@needs_ffmpeg
@pytest.mark.parametrize("matrix, name", [(1, "bt709"), (6, "smpte170m"), (9, "bt2020nc"), (2, "smpte170m")])
@pytest.mark.parametrize("size", [None, 32])
def test_colours_and_their_tags_stay(tmp_path, matrix, name, size):
    clip = quarters(tmp_path / "clip.mp4", tags={"colorspace": matrix} if matrix != 2 else None)
    written = transcode(clip, Encoding(short_side=size, crf=4))
    assert tags_of(written, tmp_path)[0] == name
    for row, column in CORNERS:
        before = first(clip)[16 + 32 * row, 24 + 48 * column]
        scale = first(written).shape[0] / 64
        after = first(written)[int((16 + 32 * row) * scale), int((24 + 48 * column) * scale)]
        assert np.abs(before - after).max() <= 4
        assert np.abs(before - CORNERS[row, column]).max() <= 6


@needs_ffmpeg
def test_full_range_stays_as_bright(tmp_path):
    clip = encode(tmp_path / "full.mp4", "-c:v libx264 -pix_fmt yuvj420p -crf 4", ONE_SECOND)
    for source in (clip, transcode(clip, Encoding(crf=4))):
        assert np.abs(first(source) - shown_by_ffmpeg(clip)[0]).mean() < 4


@needs_ffmpeg
def test_a_matrix_that_cannot_be_applied_is_refused(tmp_path):
    clip = encode(tmp_path / "clip.mp4", "-c:v libx264 -x264-params colormatrix=YCgCo", ONE_SECOND)
    with pytest.raises(BadVideo, match="unknown_colours"):
        validate(clip)


def test_numbers_without_meaning_are_as_no_number():
    frame = av.VideoFrame(16, 16, "yuv420p")
    frame.colorspace, frame.color_range = 3, 3
    with_known_colours(frame)
    assert (frame.colorspace, frame.color_range) == (2, 0)
    assert frame.to_ndarray(format="rgb24").shape == (16, 16, 3)


@needs_ffmpeg
@pytest.mark.parametrize("transfer, kind", [("smpte2084", "pq"), ("arib-std-b67", "hlg")])
def test_hdr_is_tone_mapped_or_rejected(tmp_path, transfer, kind):
    clip = encode(
        tmp_path / "hdr.mp4", HDR + transfer, ONE_SECOND + ",eq=contrast=0.4:saturation=0.5"
    )  # levels as in a film
    assert validate(clip).transfer == kind
    flat = shown_by_ffmpeg(clip)[0]
    picture = first(clip)
    assert saturation(picture) > 1.2 * saturation(flat)
    written = transcode(clip, Encoding(crf=4))
    assert validate(written).transfer == "sdr" and np.abs(first(written) - picture).mean() < 8
    item = Held(clip.read_bytes())
    assert prepare(0, item, Recipe()).meta["facts"]["transfer"] == kind
    assert prepare(0, item, Recipe(encoding=Encoding())).meta["facts"]["transfer"] == "sdr"
    for recipe in (Recipe(hdr="reject"), Recipe(hdr="reject", encoding=Encoding())):
        with pytest.raises(BadVideo, match="hdr"):
            prepare(0, item, recipe)


class Held:
    """A clip in memory."""

    def __init__(self, video):
        self.video = video

    def load(self):
        return Clip(self.video, ".mp4", {"caption": "A pattern.", "path": "hdr.mp4"}, None)


def saturation(picture):
    return (picture.max(-1).astype(int) - picture.min(-1)).mean()


def test_tone_mapping_by_arithmetic():
    """Black stays black, grey stays grey, 1000 cd/m² is white, and brighter light is never darker."""
    for kind, peak in (("pq", 0.7518), ("hlg", 1.0)):
        levels = np.linspace(0, round(peak * 65535), 64).astype(np.uint16)
        shown = tone_mapped(np.repeat(levels[None, :, None], 3, 2), kind)[0]
        assert shown.dtype == torch.uint8 and (shown.amax(-1).int() - shown.amin(-1).int() <= 1).all()
        grey = shown[:, 1].int()
        assert grey[0] == 0 and grey[-1] >= 254 and (grey.diff() >= 0).all()


@needs_ffmpeg
def test_a_size_that_changes_is_the_first_ones(tmp_path):
    """A broadcast may change it. The facts are those of the frames shown, also where the first are not shown."""
    for name, size in (("small.ts", "64x48"), ("large.ts", "96x64")):
        encode(tmp_path / name, "-c:v libx264 -g 12 -pix_fmt yuv420p", f"testsrc2=s={size}:r=24:d=1")
    both = tmp_path / "both.ts"
    ffmpeg("-i", f"concat:{tmp_path / 'small.ts'}|{tmp_path / 'large.ts'}", "-c", "copy", both)
    facts = validate(both)
    assert (facts.width, facts.height, facts.frames, facts.entry) == (64, 48, 48, "start")
    times = [0.1, 0.9, 1.1, 1.9]
    pictures = [picture for _, picture in decode(both, times, entry=facts.entry)]
    assert {picture.shape for picture in pictures} == {(48, 64, 3)}
    assert validate(transcode(both, Encoding())).frames == 48


@needs_ffmpeg
def test_interlaced_frames_show_no_combs(tmp_path):
    """A bar moves between the two fields of each frame."""
    pattern = "color=black:s=64x48:r=50:d=2,drawbox=x=0:y=0:w=16:h=48:c=white:t=fill,scroll=h=0.03,interlace=scan=tff"
    clip = encode(tmp_path / "clip.mp4", "-c:v libx264 -flags +ilme+ildct -x264-params tff=1 -crf 4", pattern)
    assert validate(clip).interlaced
    woven = combs(shown_by_ffmpeg(clip, "null")[10])
    assert woven > 4
    for source in (clip, transcode(clip, Encoding(crf=4))):
        ((_, picture),) = decode(source, [10 / 25])
        assert combs(picture.numpy()) < woven / 4


def combs(picture):
    """How much neighbouring lines differ, more than lines of the same field."""
    lines = picture.astype(int).mean(-1)
    return np.abs(lines[1:] - lines[:-1]).mean() - np.abs(lines[2:] - lines[:-2]).mean()
