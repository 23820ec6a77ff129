"""Whatever the codec and the window, the frames are those that ffmpeg shows when it decodes from the beginning."""

import io
import random
import re

import av
import numpy as np
import pytest
import torch

from data_tools.errors import BadVideo
from data_tools.packing.parts import part_frames
from data_tools.processes.child import FORK
from data_tools.video import second
from data_tools.video.container import opened
from data_tools.video.decode import decode, validate, whole_frames
from data_tools.video.packets import decodable, packets_of
from data_tools.video.reader import in_sequence
from support.encoded import KINDS, best_effort, encode, needs_ffmpeg, shown_by_ffmpeg

pytestmark = needs_ffmpeg

WINDOWS = 6


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """The path of a clip of each kind, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("codecs"), {}

    def clip(name):
        if name not in made:
            made[name] = encode(folder / name, KINDS[name][0])
        return made[name]

    return clip


@pytest.mark.parametrize("name", KINDS)
def test_all_frames_are_those_that_ffmpeg_shows(clips, name):
    facts, reference = validate(clips(name)), shown_by_ffmpeg(clips(name))
    assert (facts.frames, facts.entry) == (len(reference), KINDS[name][1])
    for (_, frame), expected in zip(whole_frames(clips(name)), reference, strict=True):
        assert difference(frame.to_ndarray(format="rgb24"), expected) < 1


@pytest.mark.parametrize("name", KINDS)
def test_all_windows_are_those_of_the_sequential_decode(clips, name):
    facts, draw = validate(clips(name)), random.Random(name)
    assert_windows(clips(name).read_bytes(), facts, draw)


def assert_windows(video, facts, draw):
    """Windows are read from where the facts allow it, and compared with all frames from the beginning."""
    whole = [(time, frame.to_ndarray(format="rgb24")) for time, frame in whole_frames(video)]
    for _ in range(WINDOWS):
        start, fps = draw.random() * facts.duration, draw.choice([4, 6, 24])
        times = [start + n / fps for n in range(6)]
        for indices, picture in decode(video, times, entry=facts.entry):
            for index in indices:
                nearest = min(abs(time - times[index]) for time, _ in whole)
                near = [frame for time, frame in whole if abs(time - times[index]) < nearest + 1e-5]
                assert any(np.array_equal(picture.numpy(), frame) for frame in near)


def difference(picture, expected):
    return np.abs(picture.astype(int) - expected).mean()


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "h264_b_frames.ts", "mpeg4_b_frames.mp4", "vp8_hidden.webm"])
def test_times_are_ffmpegs_best_effort(clips, name):
    with opened(clips(name)) as stream:
        stamps = [stamp for stamp, _ in in_sequence(stream, decodable(packets_of(stream), stream))]
    assert stamps == best_effort(clips(name))


def test_what_stands_in_the_first_packet_only_is_needed_later(tmp_path):
    """Old x264 coded 4:4:4 in its own way, and tells its version in the first packet. Later entries do not see it."""
    for quality in range(30, 48):
        options = f"-c:v libx264 -pix_fmt yuv444p -x264-params keyint=24:8x8dct=1:qp={quality}"
        new = encode(tmp_path / "new.mp4", options, "testsrc2=s=32x32:r=24:d=2.2").read_bytes()
        old = re.sub(rb"x264 - core \d\d\d", b"x264 - core 142", new)
        try:
            facts = validate(old)
        except BadVideo:
            continue  # read in the old way, the data make no sense at all
        if facts.entry == "start":
            break
    entered = [picture for _, picture in decode(old, [1.5, 2.0], entry="key_frames")]
    right = [picture for _, picture in decode(old, [1.5, 2.0])]
    assert not all(map(torch.equal, entered, right))
    assert_windows(old, facts, random.Random(0))


@pytest.mark.parametrize("name", ["h264_b_frames.ts", "h264_open_gop.mp4", "h264_intra_refresh.mp4", "xvid_packed.avi"])
@pytest.mark.parametrize("start, end", [(0.0, 0.5), (0.4, 1.1), (1.6, 2.2)])
def test_parts_are_those_of_the_whole(clips, name, start, end):
    whole = [frame.to_ndarray() for time, frame in whole_frames(clips(name)) if start - 1e-6 <= time < end - 1e-6]
    part = [frame.to_ndarray() for _, frame in part_frames(clips(name), start, end)]
    assert len(part) == len(whole) and all(map(np.array_equal, part, whole))


def test_parts_of_a_broadcast_count_from_the_first_shown_frame(clips, tmp_path):
    cut = tmp_path / "cut.ts"
    cut.write_bytes(clips("h264_b_frames.ts").read_bytes()[188 * 60 :])  # the first key frame is lost
    times = [time for time, _ in whole_frames(cut)]
    assert times[0] == 0 and 20 < len(times) < 60
    got = [time for time, _ in part_frames(cut, 0.5, 1.0)]
    assert got == [time for time in times if 0.5 - 1e-6 <= time < 1 - 1e-6]


@pytest.mark.slow
def test_damage_of_which_two_decoders_make_different_pictures_is_refused(clips):
    whole, accepted = clips("vp8_hidden.webm").read_bytes(), 0
    for place in range(2000, len(whole), 397):
        video = whole[:place] + bytes(64) + whole[place + 64 :]
        try:
            validate(video)
        except BadVideo:
            continue
        accepted += 1
        pictures = [frame.to_ndarray(format="rgb24") for _, frame in whole_frames(video)]
        with av.open(io.BytesIO(video)) as file:
            decoder = av.codec.Codec("libvpx", "r").create("video")
            theirs = [frame for packet in file.demux() for frame in decoder.decode(packet)]
        assert len(theirs) == len(pictures)
        for mine, other in zip(pictures, theirs):
            assert np.array_equal(mine, other.to_ndarray(format="rgb24")), place
    assert accepted


def test_an_flv_whose_tags_contradict_their_sizes_is_refused(clips):
    whole = clips("h264_b_frames.flv").read_bytes()
    assert validate(whole).frames == 60
    tags, at = [], 13
    while at < len(whole):
        tags.append(at)
        at += 15 + int.from_bytes(whole[at + 1 : at + 4])
    for tag in (tags[30], tags[-2]):
        with pytest.raises(BadVideo, match="tag at byte"):
            validate(whole[: tag + 200] + whole[tag + 204 :])  # four bytes of a frame are lost


@pytest.mark.parametrize(
    "name, options", [("a.mp4", "-c:v libx265 -x265-params log-level=none:hash=1"), ("a.wmv", "-c:v wmv2 -b:v 500k")]
)
def test_damage_that_checksums_or_the_syntax_show_is_refused(tmp_path, name, options):
    whole = encode(tmp_path / name, options, "testsrc2=s=96x64:r=24:d=1").read_bytes()
    assert validate(whole).frames == 24
    for place in range(len(whole) // 3, len(whole) * 2 // 3, len(whole) // 24):
        with pytest.raises(BadVideo):
            validate(whole[:place] + bytes(range(32)) + whole[place + 32 :])


def test_a_gif_is_whole_up_to_its_end_mark(tmp_path):
    whole = encode(tmp_path / "a.gif", "-c:v gif", "testsrc2=s=64x48:r=10:d=1").read_bytes()
    assert whole[-1:] == b";" and validate(whole).frames == validate(whole + b"\0behind the end").frames == 10
    for length in (len(whole) * 3 // 10, len(whole) * 6 // 10, len(whole) - 100, len(whole) - 2, len(whole) - 1):
        with pytest.raises(BadVideo, match="truncated"):
            validate(whole[:length])
    with pytest.raises(BadVideo):
        validate(whole[: len(whole) // 2] + whole[len(whole) // 2 + 4 :])  # four bytes of a frame are lost


def test_a_missing_second_decoder_is_told_of_once(clips, monkeypatch, capfd):
    monkeypatch.setattr(second, "SECOND", {"vp8": "no_such_decoder"})
    monkeypatch.setattr(second, "_told", FORK.RawArray("b", 1))
    assert validate(clips("vp8_hidden.webm")).frames == validate(clips("vp8_hidden.webm")).frames > 0
    told = [line for line in capfd.readouterr().err.splitlines() if "no_such_decoder" in line]
    assert told == [
        "warning: this FFmpeg has no no_such_decoder: damage inside the frames of vp8 clips may go unnoticed; PyAV's "
        "wheels have it"
    ]
