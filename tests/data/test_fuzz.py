"""Damaged files of many kinds through build, verify, dataset and a training step.

No run fails, and what is accepted is read right.

pytest -n 0 -m long tests/data/test_fuzz.py -s      prints the figures

With PyAV 18: 12 kinds, 528 files, of which 128 were packed and 400 rejected. All 128 showed ffmpeg's frames in all
windows, and one training step took all of them without a substitute.
"""

import random
from collections import Counter

import numpy as np
import pytest

from data_tools.dataset import ClipDataset
from data_tools.inspect.verify import verify_shards
from data_tools.packing import build_shards
from data_tools.shards import ShardReader
from data_tools.video.decode import decode, whole_frames
from data_tools.video.views import View
from pipelines import train
from support import runs
from support.commands import called
from support.encoded import KINDS, encode, needs_ffmpeg, shown_by_ffmpeg
from support.launch import checked

DAMAGED = [
    "h264_b_frames.mp4",
    "h264_b_frames.ts",
    "h264_intra_refresh.mp4",
    "hevc_open_gop.mkv",
    "av1_svt.mp4",
    "vp8_hidden.webm",
    "vp9_hidden.webm",
    "xvid_packed.avi",
    "mpeg2_b_frames.mpg",
    "h264_b_frames.flv",
    "wmv2.wmv",
    "theora.ogv",
]
PER_KIND = 44


def damaged(data, draw):
    """A copy with one to three of the things that happen to files."""
    data = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at, size = draw.randrange(len(data)), draw.choice([1, 4, 64, 512, 4096])
        kind = draw.choice(["bits", "noise", "zeros", "lost", "twice", "cut"])
        if kind == "bits":
            for _ in range(draw.randint(1, 8)):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        elif kind == "noise":
            data[at : at + size] = draw.randbytes(len(data[at : at + size]))
        elif kind == "zeros":
            data[at : at + size] = bytes(len(data[at : at + size]))
        elif kind == "lost":
            del data[at : at + size]
        elif kind == "twice":
            data[at:at] = data[at : at + size]
        else:
            del data[max(at, len(data) // 4) :]
    return bytes(data)


@pytest.mark.long
@needs_ffmpeg
def test_damage_neither_stops_a_run_nor_is_trained_on(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for kind in DAMAGED:
        whole, draw = encode(tmp_path / kind, KINDS[kind][0]).read_bytes(), random.Random(kind)
        for number in range(PER_KIND):
            (source / f"{number:03d}_{kind}").write_bytes(damaged(whole, draw))
            (source / f"{number:03d}_{kind}").with_suffix(".txt").write_text("A pattern moves.")
    done = build_shards(source, tmp_path / "shards", 64, False, workers=2, clip_timeout=60)
    assert verify_shards(tmp_path / "shards", decode=True, workers=2, clip_timeout=60).faults == []

    reader = ShardReader(tmp_path / "shards")
    data = ClipDataset(reader, seed=0, seconds=1.0, tokeniser_view=View(6, 7, 32, 32))
    assert [data[position].replaced for position in range(len(reader))] == [()] * len(reader)

    draw, against, entries = random.Random(0), Counter(), Counter()
    for row in range(len(reader)):
        sample = reader.read(row)
        facts, path = sample.meta["facts"], source / sample.meta["path"]
        whole = [(time, frame.to_ndarray(format="rgb24")) for time, frame in whole_frames(sample.video)]
        for _ in range(4):
            times = [draw.random() * facts["duration"] + n / 6 for n in range(6)]
            times.sort()
            for indices, picture in decode(sample.video, times, entry=facts["entry"]):
                for index in indices:
                    nearest = min(abs(time - times[index]) for time, _ in whole)
                    near = [frame for time, frame in whole if abs(time - times[index]) < nearest + 1e-5]
                    assert any(np.array_equal(picture.numpy(), frame) for frame in near), path.name
        size = facts["height"], facts["width"]
        shown = shown_by_ffmpeg(path, size=size)[-len(whole) :]
        same = len(shown) == len(whole) and shown.shape[1:] == whole[0][1].shape
        if same:
            worst = max(np.abs(mine.astype(int) - theirs).mean() for (_, mine), theirs in zip(whole, shown))
            same = worst < 3
        against["as ffmpeg" if same else f"unlike ffmpeg: {path.name}"] += 1
        entries[facts["entry"]] += 1
    print(
        f"\n{len(DAMAGED)} kinds, {done.packed + done.rejected} files: {done.packed} packed, {done.rejected} rejected"
    )
    print(dict(done.reasons), dict(entries), dict(against), sep="\n")
    assert set(against) == {"as ffmpeg"}

    # One step whose batch is all of them.
    options = {
        "--config": runs.CONFIG, "--ds_config": runs.DS_CONFIG, "--data.shards": tmp_path / "shards",
        "--data.seconds": 1, "--train.max_steps": 1, "--train.global_batch_size": len(reader),
        "--train.micro_batch_size": 4, "--validation.every": 0, "--output": tmp_path / "run",
    }  # fmt: skip
    checked(called(train.main, *sum(options.items(), ())))
    (line,) = runs.log_of(tmp_path / "run")
    assert line["bad_samples"] == 0 and np.isfinite(line["loss"])
    print(f"one step on all {len(reader)}: loss {line['loss']:.3f}, none replaced")
