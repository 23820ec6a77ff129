"""Recordings that were joined end to end, as by `cat`: the times of the second one need not follow the first one's."""

import numpy as np
import pytest

from data_tools.errors import BadVideo
from data_tools.packing import parts
from data_tools.packing.parts import part_frames
from data_tools.video.decode import decode, measured_duration, validate, whole_frames
from support.encoded import encode, needs_ffmpeg, shown_by_ffmpeg

pytestmark = needs_ffmpeg

MPEG2 = "-c:v mpeg2video -b:v 800k -g 12 -bf 2"
STEP = 1 / 24
PAIRS = [("late", "early"), ("early", "late"), ("early", "early")]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two recordings of 48 frames, the second one 60 s later."""
    folder, pattern = tmp_path_factory.mktemp("joined"), "testsrc2=s=96x64:r=24:d=2"
    return {
        "early": encode(folder / "early.mpg", MPEG2, pattern),
        "late": encode(folder / "late.mpg", f"{MPEG2} -output_ts_offset 60", pattern + ",negate"),
    }


def join(path, *parts):
    path.write_bytes(b"".join(parts))
    return path


def pictures(path):
    return [frame.to_ndarray(format="rgb24") for _, frame in whole_frames(path)]


@pytest.mark.parametrize("names", PAIRS)
def test_joined_recordings_are_shown_one_after_the_other(recordings, tmp_path, names):
    clip = join(tmp_path / "joined.mpg", *(recordings[name].read_bytes() for name in names))
    facts, shown, reference = validate(clip), list(whole_frames(clip)), shown_by_ffmpeg(clip)
    assert (facts.frames, facts.entry) == (96, "key_frames") and facts.duration == pytest.approx(4)
    assert measured_duration(clip) == facts.duration
    assert [time for time, _ in shown] == pytest.approx([n * STEP for n in range(96)], abs=1e-4)
    for (_, frame), expected in zip(shown, reference, strict=True):
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - expected).mean() < 1


@pytest.mark.parametrize("names", PAIRS)
def test_windows_and_parts_of_joined_recordings(recordings, tmp_path, names):
    clip = join(tmp_path / "joined.mpg", *(recordings[name].read_bytes() for name in names))
    whole = pictures(clip)
    for first in (0, 20, 46, 48, 70, 90):
        times = [(first + n) * STEP for n in range(5)]
        got = [picture.numpy() for _, picture in decode(clip, times, entry="key_frames")]
        part = [frame.to_ndarray(format="rgb24") for _, frame in part_frames(clip, times[0] - 0.01, times[-1] + 0.01)]
        for found in (got, part):
            assert len(found) == 5 and all(map(np.array_equal, found, whole[first:]))


def test_parts_of_a_recording_that_is_not_joined_are_sought(recordings, monkeypatch):
    """All of a long recording is not read for each of its parts, but once."""
    monkeypatch.setattr(parts, "_from_last_key", None)
    read, counted = [], parts.recordings_in
    monkeypatch.setattr(parts, "recordings_in", lambda *arguments: read.append(1) or counted(*arguments))
    clip = recordings["late"]
    for first in (30, 40):
        got = [frame.to_ndarray(format="rgb24") for _, frame in part_frames(clip, (first - 0.5) * STEP, 45.5 * STEP)]
        assert len(got) == 46 - first and all(map(np.array_equal, got, pictures(clip)[first:]))
    assert len(read) == 1


STREAM = "-c:v mpeg2video -b:v 800k -g 12 -bf 2 -f mpegts"
KINDS = ["libx264 -bf 3 -pix_fmt yuv420p", "mpeg2video -bf 2", "libx265 -x265-params log-level=none"]


def packets_of(data, size=188):
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("codec", KINDS, ids=lambda codec: codec.split()[0])
def test_segments_of_a_transport_stream_are_joined(tmp_path, codec):
    """Their counters begin anew, which FFmpeg takes for damage."""
    segments = f"-c:v {codec} -g 12 -f segment -segment_time 0.5 -segment_format mpegts"
    encode(tmp_path / "s%d.ts", segments, "testsrc2=s=96x64:r=24:d=2")
    pieces = [path.read_bytes() for path in sorted(tmp_path.glob("s*.ts"))]
    clip = join(tmp_path / "a.ts", *pieces)
    facts, reference = validate(clip), shown_by_ffmpeg(clip)
    assert len(pieces) > 3 and facts.frames == len(reference) == 48 and facts.duration == pytest.approx(2, abs=1e-4)
    for picture, expected in zip(pictures(clip), reference, strict=True):
        assert np.abs(picture.astype(int) - expected).mean() < 1
    assert len(list(part_frames(clip, 0.25, 1.5))) == 30
    lacking = join(tmp_path / "lacking.ts", pieces[0], pieces[2])
    with pytest.raises(BadVideo, match="truncated: frames are missing where|corrupt"):
        validate(lacking)


@pytest.mark.parametrize("names", PAIRS)
@pytest.mark.parametrize("mode", ["", "-mpegts_m2ts_mode 1"])
def test_joined_transport_streams_are_shown_one_after_the_other(tmp_path, names, mode):
    for name, offset in (("early", 0), ("late", 60)):
        options = f"{STREAM} {mode} -output_ts_offset {offset}"
        encode(tmp_path / f"{name}.ts", options, "testsrc2=s=96x64:r=24:d=1")
    clip = join(tmp_path / "joined.ts", *((tmp_path / f"{name}.ts").read_bytes() for name in names))
    assert validate(clip).frames == 48 and validate(clip).duration == pytest.approx(2, abs=1e-4)
    assert all(map(np.array_equal, pictures(clip), 2 * pictures(tmp_path / "early.ts")))


def test_holes_of_a_transport_stream_are_found(tmp_path):
    whole = packets_of(encode(tmp_path / "a.ts", STREAM, "testsrc2=s=96x64:r=24:d=2").read_bytes())
    videos = [n for n, packet in enumerate(whole) if packet[1:3] in (b"\x01\x00", b"\x41\x00")]
    tables = [n for n, packet in enumerate(whole) if packet[1:3] == b"\x40\x00"]
    assert validate(b"".join(whole)).frames == 48
    for first, last in [(n, n + 1) for n in videos[20:-20:17]] + [(n - 9, n) for n in tables[4:-2]]:
        with pytest.raises(BadVideo, match="truncated"):
            validate(b"".join(whole[:first] + whole[last:]))


def test_each_recording_begins_at_a_key_frame_of_its_own(tmp_path):
    """Its pictures before that one refer to pictures that are not in the file."""
    early = encode(tmp_path / "early.ts", STREAM, "testsrc2=s=96x64:r=24:d=1")
    late = encode(tmp_path / "late.ts", f"{STREAM} -output_ts_offset 60", "testsrc2=s=96x64:r=24:d=1,negate")
    packets = packets_of(late.read_bytes())
    fifth = [n for n, packet in enumerate(packets) if packet[1:3] == b"\x41\x00"][5]
    video = [n for n in range(fifth, len(packets)) if packets[n][1:3] in (b"\x01\x00", b"\x41\x00")]
    for count, n in enumerate(video):  # as the recorder counts that begins here
        packets[n] = packets[n][:3] + bytes([packets[n][3] & 0xF0 | count % 16]) + packets[n][4:]
    cut = b"".join(packets[:3] + packets[fifth:])
    clip, alone = join(tmp_path / "joined.ts", early.read_bytes(), cut), pictures(join(tmp_path / "cut.ts", cut))
    assert 5 < len(alone) < 19 and all(map(np.array_equal, alone[::-1], pictures(late)[::-1]))
    assert all(map(np.array_equal, pictures(clip), [*pictures(early), *alone]))
    assert validate(clip).frames == 24 + len(alone)
    assert validate(clip).duration == pytest.approx(validate(clip).frames * STEP, abs=1e-4)
