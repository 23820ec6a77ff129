"""Which videos are accepted, what is said of the others, and that the right frames come out of the accepted ones."""

import pickle
import random
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.errors import BadVideo, DataError
from data_tools.video.decode import decode, measured_duration, validate
from data_tools.video.facts import KEY_FRAMES, START
from data_tools.video.with_torchcodec import torchcodec_problem
from support.real_clips import BAD_CLIPS, CLIPS, DAMAGED, needs_shared

ACCEPTED = {  # width, height, frames, duration, codec, rotation, pixel format
    "good_control.mp4": (256, 144, 90, 3.003, "h264", 0, "yuv420p"),
    "two_frames.mp4": (256, 144, 2, 2 * 1001 / 30000, "h264", 0, "yuv420p"),
    "all_black.mp4": (64, 64, 48, 2.0, "h264", 0, "yuv420p"),
    "odd_101x67_444.mp4": (119, 67, 60, 2.002, "h264", 0, "yuv444p"),
    "odd_101x67_420.webm": (119, 67, 60, 2.002, "vp9", 0, "yuv420p"),
    "wide_1920x64.mp4": (1862, 64, 60, 2.002, "h264", 0, "yuv420p"),
    "vfr.mp4": (256, 144, 58, 119119 / 30000, "h264", 0, "yuv420p"),
    "rotated90_meta.mp4": (144, 256, 90, 3.003, "h264", 90, "yuv420p"),
    "gray_pixfmt.mp4": (256, 144, 60, 2.002, "h264", 0, "yuvj420p"),
    "hevc_10bit.mp4": (256, 144, 90, 3.003, "hevc", 0, "yuv420p10le"),
    "huge_declared_duration.mp4": (256, 144, 90, 3.003, "h264", 0, "yuv420p"),
    "no_keyframe_at_start.ts": (256, 144, 78, 78 * 1001 / 30000, "h264", 0, "yuv420p"),
    "wrong_extension_is_ts.mp4": (256, 144, 90, 3.003, "h264", 0, "yuv420p"),
    "unordered_pts_50x50.mov": (50, 50, 4, 0.125, "h264", 0, "yuv420p"),
    "animated.gif": (160, 90, 60, 2.0, "gif", 0, "bgra"),
}


@needs_shared
def test_tables_cover_every_bad_clip():
    assert {path.name for path in BAD_CLIPS.iterdir()} - {"README.md"} == DAMAGED.keys() | ACCEPTED.keys()


@needs_shared
@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("as_bytes", [True, False])
def test_rejects_with_a_reason(name, as_bytes):
    path = BAD_CLIPS / name
    with pytest.raises(BadVideo) as caught:
        validate(path.read_bytes() if as_bytes else path)
    assert caught.value.reason == DAMAGED[name]
    assert "\n" not in str(caught.value)


@needs_shared
@pytest.mark.parametrize("name", ACCEPTED)
def test_accepts_with_exact_facts(name):
    facts = validate((BAD_CLIPS / name).read_bytes())
    width, height, frames, duration, codec, rotation, pix_fmt = ACCEPTED[name]
    assert (facts.width, facts.height, facts.frames) == (width, height, frames)
    assert (facts.codec, facts.rotation, facts.pix_fmt) == (codec, rotation, pix_fmt)
    assert facts.duration == pytest.approx(duration, abs=1e-6)
    assert facts.fps == pytest.approx(frames / duration)
    assert facts.to_dict()["frames"] == frames


@needs_shared
@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_clips_decode_in_full(name):
    facts, reference = validate(BAD_CLIPS / name), decode_in_full(BAD_CLIPS / name)
    assert len(reference) == facts.frames
    got = list(decode(BAD_CLIPS / name, [time for time, _ in reference]))
    assert [indices for indices, _ in got] == [[n] for n in range(facts.frames)]
    for (_, picture), (_, expected) in zip(got, reference):
        assert picture.shape == (facts.height, facts.width, 3) and picture.dtype == torch.uint8
        assert same(picture, expected)


@needs_shared
@pytest.mark.parametrize("path", sorted(CLIPS.glob("*.m*")), ids=lambda path: path.name)
def test_skipping_leaves_wanted_frames_bit_identical(path):
    times = [0.7 + i / 6 for i in range(10)]
    reference = decode_in_full(path, until=2.5)
    got = list(decode(path.read_bytes(), times))
    assert sorted(index for indices, _ in got for index in indices) == list(range(len(times)))
    for indices, picture in got:
        for index in indices:
            assert same(picture, nearest(reference, times[index]))


@needs_shared
def test_begins_at_a_later_key_frame():
    times = [2.0, 2.02, 2.9]
    reference = decode_in_full(BAD_CLIPS / "good_control.mp4")
    got = list(decode(BAD_CLIPS / "good_control.mp4", times))
    assert [indices for indices, _ in got] == [[0], [1], [2]]
    assert all(torch.equal(picture, nearest(reference, times[n])) for (n,), picture in got)


@needs_shared
@pytest.mark.parametrize(
    "path, shape", [(CLIPS / "keyboard_rot90.mp4", (1280, 720, 3)), (BAD_CLIPS / "rotated90_meta.mp4", (256, 144, 3))]
)
def test_a_phone_held_upright_gives_upright_frames(path, shape):
    ((_, picture),) = decode(path, [0.0])
    assert picture.shape == shape


@needs_shared
def test_upside_down_is_turned():
    ((_, picture),) = decode(CLIPS / "fire2_rot180.mp4", [0.0])
    with av.open(str(CLIPS / "fire2_rot180.mp4")) as container:
        coded = torch.from_numpy(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    assert torch.equal(picture, coded.flip(0, 1))


@needs_shared
def test_variable_frame_rate_is_sampled_by_time():
    reference = decode_in_full(BAD_CLIPS / "vfr.mp4")
    times = [i / 6 for i in range(24)]
    got = {index: picture for indices, picture in decode(BAD_CLIPS / "vfr.mp4", times) for index in indices}
    assert all(torch.equal(got[index], nearest(reference, time)) for index, time in enumerate(times))
    by_number = [min(round(time * 58 / reference[-1][0]), 57) for time in times]
    assert any(not torch.equal(got[index], reference[number][1]) for index, number in enumerate(by_number))


def test_interlaced_input_loads(tmp_path):
    clip = make_video(tmp_path / "interlaced.mp4", options={"flags": "+ilme+ildct", "x264-params": "interlaced=1"})
    with av.open(str(clip)) as file:
        assert next(file.decode(video=0)).interlaced_frame
    facts = validate(clip)
    assert (facts.frames, facts.width, facts.height) == (60, 64, 48)
    (((_, picture)),) = decode(clip, [0.5])
    assert abs(shade(picture) - 12) <= 1


@pytest.mark.parametrize("suffix, marked", [(".mkv", 0), (".mkv", 1), (".mp4", 0), (".mp4", 1)])
def test_of_two_video_streams_the_one_that_the_file_marks_is_taken(tmp_path, suffix, marked):
    clip = tmp_path / f"two{suffix}"
    with av.open(str(clip), "w") as file:
        streams = [file.add_stream("libx264", rate=24) for _ in range(2)]
        streams[marked].disposition = av.stream.Disposition.default
        for stream, (width, height) in zip(streams, ((64, 48), (128, 96)), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(12):
            for level, stream in zip((200, 20), streams, strict=True):
                picture = np.full((stream.height, stream.width, 3), level, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = n, Fraction(1, 24)
                file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode())
    (width, height), level = ((64, 48), (128, 96))[marked], (200, 20)[marked]
    assert (validate(clip).width, validate(clip).frames) == (width, 12)
    (((_, picture)),) = decode(clip, [0.25])
    assert picture.shape == (height, width, 3) and abs(shade(picture) - level / 4) <= 1


def test_a_cover_picture_is_no_stream_to_take(tmp_path):
    clip = tmp_path / "cover.mp4"
    with av.open(str(clip), "w") as file:
        cover, film = file.add_stream("mjpeg"), file.add_stream("libx264", rate=24)
        cover.disposition = av.stream.Disposition.attached_pic
        cover.width, cover.height, cover.pix_fmt = 128, 96, "yuvj420p"
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        for stream, frames in ((cover, 1), (film, 12)):
            for n in range(frames):
                picture = np.full((stream.height, stream.width, 3), 80, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = n, Fraction(1, 24)
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
    with av.open(str(clip)) as file:
        assert len(file.streams.video) == 2
    assert (validate(clip).width, validate(clip).frames) == (64, 12)


def test_times_count_from_the_first_frame_whatever_the_start_offset(tmp_path):
    clip = tmp_path / "late.ts"
    make_video(clip, container={"output_ts_offset": "7.5"})
    with av.open(str(clip)) as file:
        assert file.streams.video[0].start_time * file.streams.video[0].time_base > 7
    assert validate(clip).duration == pytest.approx(2.5, abs=0.01)
    (((_, picture)),) = decode(clip, [1.0])
    assert abs(shade(picture) - 24) <= 1


def test_times_choose_the_nearest_frame(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", frames=10)  # 24 frames a second: frame n at n / 24 s
    times = [0.0, 0.4 / 24, 0.5 / 24, 0.6 / 24, 7.5 / 24, 9 / 24, 99.0]
    got = [(indices, shade(picture)) for indices, picture in decode(clip, times)]
    assert got == [([0, 1, 2], 0), ([3], 1), ([4], 7), ([5, 6], 9)]


@pytest.mark.parametrize("start", [0.5, 1.0])
def test_edit_list_hides_the_frames_before_its_start(tmp_path, start):
    clip = cut_without_encoding(make_video(tmp_path / "long.mp4"), tmp_path / "cut.mp4", start)
    facts, hidden = validate(clip), round(24 * start)
    assert facts.frames == 60 - hidden and facts.duration == pytest.approx(facts.frames / 24)
    got = [shade(picture) for _, picture in decode(clip, [0.0, 5 / 24, 9.9])]
    assert got == [hidden, hidden + 5, 59]


@pytest.mark.parametrize("first", range(8, 30))
def test_open_gops_are_entered_at_the_right_key_frame(tmp_path, first):
    clip = make_video(tmp_path / "open.mp4", options=OPEN_GOP)
    got = [shade(picture) for _, picture in decode(clip, [first / 24, (first + 5) / 24])]
    assert got == [first, first + 5]


def test_pictures_before_the_first_key_frame_are_not_shown(tmp_path):
    open_gop = {"g": "12", "bf": "2", "sc_threshold": "1000000000"}
    whole = make_video(tmp_path / "whole.mkv", codec="mpeg2video", options=open_gop)
    with av.open(str(whole)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    key = [n for n, packet in enumerate(packets) if packet.is_keyframe][1]
    shown = sum(packet.pts >= packets[key].pts for packet in packets[key:])
    assert shown < len(packets) - key
    clip = cut_without_encoding(whole, tmp_path / "cut.mkv", dropped=key - 1)
    assert validate(clip).frames == shown
    got = [shade(picture) for _, picture in decode(clip, [0.0, 3 / 24])]
    assert got == [60 - shown, 60 - shown + 3]


@needs_shared
@pytest.mark.parametrize(
    "path",
    [
        CLIPS / "coffee.mp4",
        CLIPS / "flipping_a_pancake.mkv",
        CLIPS / "keyboard_rot90.mp4",
        CLIPS / "fire2_rot180.mp4",
        CLIPS / "nasa_13013.mp4",
        BAD_CLIPS / "vfr.mp4",
        BAD_CLIPS / "rotated90_meta.mp4",
        BAD_CLIPS / "hevc_10bit.mp4",
        BAD_CLIPS / "odd_101x67_420.webm",
        BAD_CLIPS / "unordered_pts_50x50.mov",
    ],
    ids=lambda path: path.name,
)
def test_decord_gives_the_same_frames(path):
    pytest.importorskip("decord")
    times = [i / 6 for i in range(12)]
    ours, theirs = list(decode(path, times)), list(decode(path.read_bytes(), times, "decord"))
    assert [indices for indices, _ in ours] == [indices for indices, _ in theirs]
    for (_, picture), (_, other) in zip(ours, theirs):
        assert picture.shape == other.shape and other.dtype == torch.uint8
        assert (picture.float() - other.float()).abs().mean() < 2


def test_decord_refuses_where_it_would_be_wrong(tmp_path):
    pytest.importorskip("decord")
    edited = cut_without_encoding(make_video(tmp_path / "long.mp4"), tmp_path / "cut.mp4", 1.0)
    open_gop = make_video(tmp_path / "open.mp4", options=OPEN_GOP)
    for clip in (edited, open_gop):
        with pytest.raises(BadVideo, match="decord_unsupported"):
            list(decode(clip, [0.0], "decord"))


@needs_shared
def test_decord_refuses_transport_streams():
    pytest.importorskip("decord")
    with pytest.raises(BadVideo, match="decord_unsupported"):
        list(decode(BAD_CLIPS / "wrong_extension_is_ts.mp4", [0.0], "decord"))


@needs_shared
def test_missing_decord_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(DataError, match="not installed") as caught:
        list(decode(BAD_CLIPS / "good_control.mp4", [0.0], "decord"))
    assert not isinstance(caught.value, BadVideo)


needs_torchcodec = pytest.mark.skipif(bool(torchcodec_problem()), reason=torchcodec_problem())


@needs_shared
@needs_torchcodec
@pytest.mark.parametrize(
    "path",
    [
        *(CLIPS / name for name in ("coffee.mp4", "flipping_a_pancake.mkv", "keyboard_rot90.mp4", "fire2_rot180.mp4",
                                    "dog_catch_hevc_60fps.mp4", "dog_in_snow_mpeg4.mp4", "nasa_13013.mp4")),
        *(BAD_CLIPS / name for name in ("vfr.mp4", "rotated90_meta.mp4", "hevc_10bit.mp4", "odd_101x67_420.webm",
                                        "unordered_pts_50x50.mov", "wrong_extension_is_ts.mp4")),
    ],
    ids=lambda path: path.name,
)  # fmt: skip
def test_torchcodec_gives_the_same_pixels(path):
    times = [i / 6 for i in range(12)]
    ours, theirs = list(decode(path, times)), list(decode(path.read_bytes(), times, "torchcodec"))
    assert [indices for indices, _ in ours] == [indices for indices, _ in theirs]
    for (_, picture), (_, other) in zip(ours, theirs):
        assert picture.shape == other.shape and other.dtype == torch.uint8
        assert (picture.int() - other.int()).abs().max() <= 1


@needs_torchcodec
def test_torchcodec_gives_the_same_pixels_of_an_open_gop_and_of_an_edit_list(tmp_path):
    open_gop = make_video(tmp_path / "open.mp4", options=OPEN_GOP)
    edited = cut_without_encoding(make_video(tmp_path / "long.mp4"), tmp_path / "cut.mp4", 1.0)
    for clip in (open_gop, edited):
        for (_, picture), (_, other) in zip(decode(clip, [0.0, 0.4, 0.9]), decode(clip, [0.0, 0.4, 0.9], "torchcodec")):
            assert (picture.int() - other.int()).abs().max() <= 1


@needs_torchcodec
def test_torchcodec_itself_reads_plain_clips(tmp_path, monkeypatch):
    clip = make_video(tmp_path / "a.mp4")
    monkeypatch.setattr("data_tools.video.decode._by_pyav", None)
    assert len(list(decode(clip, [0.0, 0.5], "torchcodec", KEY_FRAMES))) == 2
    with pytest.raises(TypeError, match="NoneType"):  # PyAV's turn
        list(decode(clip, [0.0, 0.5], "torchcodec", START))


def test_missing_torchcodec_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(DataError, match="does not load") as caught:
        list(decode(make_video(tmp_path / "a.mp4"), [0.0], "torchcodec"))
    assert not isinstance(caught.value, BadVideo) and "\n" not in str(caught.value)


def test_unknown_backend_is_said_at_once():
    with pytest.raises(DataError, match="pyav, torchcodec, decord"):
        decode(b"", [0.0], "ffmpeg")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_cut_between_two_frames_is_truncated(tmp_path, suffix):
    clip = make_video(tmp_path / f"clip{suffix}", container={"movflags": "faststart"})
    assert validate(clip).frames == 60
    with av.open(str(clip)) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.size]
    # What is left is sound: only the index, or the length the header promises, can tell.
    with pytest.raises(BadVideo, match="truncated"):
        validate(clip.read_bytes()[: starts[40]])


def test_frames_of_an_avi_are_shown_in_their_order(tmp_path):
    """AVI stores no display times: the frames of reordered H.264 follow one another evenly."""
    clip = make_video(tmp_path / "clip.avi", options={"bf": "2"})
    facts = validate(clip)
    assert (facts.frames, facts.entry) == (60, "start")
    assert facts.duration == measured_duration(clip) == pytest.approx(2.5)
    assert [shade(picture) for _, picture in decode(clip, [n / 24 for n in range(60)])] == [*range(60)]


def test_playlists_open_nothing(tmp_path):
    make_video(tmp_path / "secret.mp4", frames=3)
    (tmp_path / "clip.mp4").write_text("ffconcat version 1.0\nfile 'secret.mp4'\n")
    with pytest.raises(BadVideo, match="not_a_video"):
        validate(tmp_path / "clip.mp4")


def test_unreadable_path(tmp_path):
    with pytest.raises(BadVideo, match="unreadable"):
        validate(tmp_path / "nowhere.mp4")


@needs_shared
@pytest.mark.parametrize("name", ["good_control.mp4", "odd_101x67_420.webm", "wrong_extension_is_ts.mp4"])
def test_damage_raises_nothing_but_bad_video(name):
    whole, draw = (BAD_CLIPS / name).read_bytes(), random.Random(name)
    for _ in range(15):
        damaged = bytearray(whole)
        for _ in range(8):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        damaged = bytes(damaged[: draw.randrange(len(damaged))] if draw.random() < 0.3 else damaged)
        for use in (validate, lambda source: list(decode(source, [0.0, 1.0]))):
            try:
                use(damaged)
            except BadVideo as error:
                assert error.reason


def test_bad_video_survives_pickling():
    error = pickle.loads(pickle.dumps(BadVideo("truncated", "the data ends")))
    assert type(error) is BadVideo and isinstance(error, DataError)
    assert (error.reason, str(error)) == ("truncated", "truncated: the data ends")


OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3"}


def make_video(path, frames=60, codec="libx264", options=None, container=None):
    """24 frames a second, 64 x 48; frame n is grey of level 4 n."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.options = 64, 48, "yuv420p", options or {}
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * n, np.uint8), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 24)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def shade(picture):
    """The number n of a frame of `make_video`."""
    return round(picture.float().mean().item() / 4)


def cut_without_encoding(source, target, start=0.0, dropped=0):
    """As `ffmpeg -ss start -c copy` does: earlier packets stay in the file, before the start of its edit list.

    dropped: packets that, as in a recording of a broadcast, are not even in the file.
    """
    with av.open(str(source)) as old, av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        offset = round(start / old.streams.video[0].time_base)
        for packet in [packet for packet in old.demux(video=0) if packet.size][dropped:]:
            packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, stream
            new.mux(packet)
    return target


def decode_in_full(path, until=float("inf")):
    """(seconds from the first frame, uint8 (H, W, 3)) of every frame, with nothing skipped; pixels as stored."""
    reference, first = [], None
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.best("video")):
            picture = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            first = frame.pts if first is None else first
            reference.append((float((frame.pts - first) * frame.time_base), torch.from_numpy(picture.copy())))
            if reference[-1][0] > until:
                break
    return reference


def same(picture, expected):
    """Whether all pixels are equal; of stored pixels that are not square, whether they are when they are stretched."""
    if picture.shape == expected.shape:
        return torch.equal(picture, expected)
    height, width, _ = picture.shape
    stretched = Image.fromarray(expected.numpy()).resize((width, height), Image.Resampling.BICUBIC)
    return (picture.int() - torch.from_numpy(np.array(stretched)).int()).abs().max() <= 2


def nearest(reference, time):
    return min(reference, key=lambda entry: abs(entry[0] - time))[1]
