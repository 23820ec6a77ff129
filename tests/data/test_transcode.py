"""Cutting and encoding anew: the frames that were asked for, at their times, upright, and always the same bytes."""

import math
from fractions import Fraction

import av
import numpy as np
import pytest

from data_tools.errors import BadVideo, DataError
from data_tools.packing.transcode import Encoding, at_rate, new_size, transcode
from data_tools.video.decode import decode, validate, whole_frames
from support.encoded import encode, needs_ffmpeg
from support.real_clips import BAD_CLIPS, CLIPS, needs_shared

PATHS = sorted(CLIPS.glob("*.m*"))


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """Frame n of 60, 24 a second, is grey of level 4 n; with B-frames and open GOPs."""
    path = tmp_path_factory.mktemp("transcode") / "counting.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"x264-params": "open-gop=1:keyint=12:bframes=3", "crf": "4"}
        for n in range(60):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * n, np.uint8), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 24)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def numbers(video):
    """The number of each frame of a clip made from `counting`."""
    facts = validate(video)
    times = [n / facts.fps for n in range(facts.frames)]
    return [round(picture.float().mean().item() / 4) for _, picture in decode(video, times)]


@pytest.mark.parametrize("first, last", [(0, 10), (1, 30), (11, 13), (12, 24), (25, 60), (40, 50)])
def test_a_part_has_exactly_its_frames(counting, first, last):
    for source in (counting, counting.read_bytes()):
        assert numbers(transcode(source, Encoding(crf=4), first / 24, last / 24)) == list(range(first, last))
    assert numbers(transcode(counting, Encoding(crf=4), first / 24 + 0.01, math.inf)) == list(range(first + 1, 60))


def test_a_part_outside_the_video_is_named(counting):
    with pytest.raises(BadVideo, match="empty_span.*from 9 s"):
        transcode(counting, Encoding(), 9.0, 10.0)
    assert len(numbers(transcode(counting, Encoding(), 2.0, 99.0))) == 12


def test_a_steady_rate_shows_the_nearest_frames(counting):
    assert numbers(transcode(counting, Encoding(fps=Fraction(12), crf=4))) == list(range(0, 60, 2))
    doubled = numbers(transcode(counting, Encoding(fps=Fraction(48), crf=4), 1.0, 2.0))
    assert doubled == [24 + (n // 2) for n in range(47)]


def test_rates_by_arithmetic():
    uneven = [(0.0, "a"), (0.1, "b"), (0.5, "c"), (0.52, "d"), (1.0, "e")]
    ticks = list(at_rate(uneven, Fraction(4)))
    assert [time for time, _ in ticks] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [frame for _, frame in ticks] == ["a", "b", "c", "d", "e"]
    assert list(at_rate([], Fraction(4))) == []


def test_sizes_by_arithmetic():
    assert new_size(1280, 720, 360) == (640, 360)
    assert new_size(720, 1280, 360) == (360, 640)
    assert new_size(320, 180, 360) == (320, 180)
    assert new_size(101, 67, None) == (100, 66)
    assert new_size(1920, 64, 16) == (480, 16)


def test_senseless_settings_are_refused():
    for encoding in (Encoding(short_side=4), Encoding(fps=Fraction(0)), Encoding(codec="vhs"), Encoding(crf=99)):
        with pytest.raises(DataError):
            encoding.check()


@needs_shared
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_real_clips_become_small_steady_and_upright(path):
    before = validate(path)
    encoding = Encoding(short_side=90, fps=Fraction(24))
    video = transcode(path, encoding, 0.0, 2.0)
    facts = validate(video)
    assert (facts.codec, facts.pix_fmt, facts.rotation, facts.fps) == ("h264", "yuv420p", 0, pytest.approx(24))
    assert min(facts.width, facts.height) == 90 and abs(facts.duration - min(before.duration, 2.0)) < 0.25
    assert facts.width / facts.height == pytest.approx(before.width / before.height, rel=0.03)
    assert video == transcode(path.read_bytes(), encoding, 0.0, 2.0)
    for time in (0.0, 1.0):
        ((_, ours),), ((_, theirs),) = (decode(source, [time]) for source in (video, path))
        assert brightness(ours) == pytest.approx(brightness(theirs), abs=14)


def brightness(picture):
    """Means of the four quarters: tells which way is up."""
    height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    quarters = picture[:height, :width].float().reshape(2, height // 2, 2, width // 2, 3)
    return quarters.mean((1, 3, 4)).flatten().tolist()


@needs_shared
def test_frames_keep_their_times_without_a_rate():
    path = BAD_CLIPS / "vfr.mp4"
    facts, before = validate(transcode(path, Encoding())), validate(path)
    assert facts.frames == before.frames
    assert facts.duration == pytest.approx(before.duration, abs=1e-3)


DOUBLED = "setts=pts='if(eq(N,10),PREV_OUTPTS,PTS)':dts='if(eq(N,10),PREV_OUTDTS,DTS)'"


@needs_ffmpeg
@pytest.mark.parametrize("span", [(0.0, math.inf), (0.25, 1.0)])
def test_frames_of_the_same_time_are_all_encoded(tmp_path, span):
    """A clock may stand for a frame, and Matroska counts milliseconds, too coarse for 1500 frames a second."""
    doubled = f"-c:v libvpx -b:v 200k -auto-alt-ref 0 -bsf:v {DOUBLED}"
    webm = encode(tmp_path / "doubled.webm", doubled, "testsrc2=s=64x48:r=24:d=2")
    fast = encode(tmp_path / "fast.mkv", "-c:v libx264 -pix_fmt yuv420p", "testsrc2=s=64x48:r=1500:d=0.1")
    for clip, (start, end) in ((webm, span), (fast, (span[0] / 10, span[1] / 10))):
        times = [time - start for time, _ in whole_frames(clip) if start - 1e-6 <= time < end - 1e-6]
        assert len(set(times)) < len(times)
        video = transcode(clip, Encoding(short_side=32), start, end)
        got = [time for time, _ in whole_frames(video)]
        assert validate(video).frames == len(times) and len(set(got)) == len(got)
        assert got == pytest.approx([time - times[0] for time in times], abs=1e-4)


@needs_ffmpeg
def test_a_clip_whose_frames_all_have_the_same_time_is_refused(tmp_path):
    stopped = "-c:v mjpeg -bsf:v setts=pts=0:dts=0"
    clip = encode(tmp_path / "stopped.mkv", stopped, "testsrc2=s=64x48:r=24:d=0.5").read_bytes()
    for use in (validate, lambda video: transcode(video, Encoding())):
        with pytest.raises(BadVideo, match="bad_timestamps: all frames have the same time"):
            use(clip)


@needs_shared
def test_damage_is_found_while_encoding():
    for name, reason in {"decord_corrupted.mp4": "corrupt", "truncated_mdat_half.mp4": "truncated"}.items():
        with pytest.raises(BadVideo) as caught:
            transcode(BAD_CLIPS / name, Encoding())
        assert caught.value.reason == reason


@needs_shared
def test_a_broadcast_cut_in_mid_gop_is_encoded_from_its_first_key_frame():
    path = BAD_CLIPS / "no_keyframe_at_start.ts"
    for source in (path, path.read_bytes()):
        assert validate(transcode(source, Encoding(), 0.0, 5.0)).frames == validate(path).frames
