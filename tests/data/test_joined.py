"""Recordings that were joined end to end, as by `cat`: the times of the second one need not follow the first one's."""

import numpy as np
import pytest

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
