"""The numbers of a dataset, against those counted by hand."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_tools.cli import main
from data_tools.inspect.stats import MEASURES, dataset_stats, stats_table
from data_tools.packing import build_shards
from data_tools.video.encode import encode_mp4

CLIPS = [  # width, height, frames, fps, caption
    (32, 48, 4, 2, "One."),
    (32, 48, 8, 2, "One two."),
    (64, 48, 12, 4, "One two three four."),
    (32, 32, 30, 10, "One two three four  five\nsix."),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    rows = [(f"{number}.mp4", clip[-1]) for number, clip in enumerate(CLIPS)]
    for number, (width, height, frames, fps, _) in enumerate(CLIPS):
        pictures = np.random.default_rng(number).integers(0, 255, (frames, height, width, 3), np.uint8)
        (folder / f"{number}.mp4").write_bytes(encode_mp4(iter(pictures), fps, crf=30))
    for name in ("bad.mp4", "worse.mp4"):
        (folder / name).write_text("no video")
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "caption"), *rows, ("bad.mp4", "A."), ("worse.mp4", "B."), ("none.mp4", "C.")]
        )
    build_shards(folder, folder / "out", samples_per_shard=3, progress=False)
    return folder / "out"


def test_the_numbers_are_right(built):
    numbers = dataset_stats(built)
    assert (numbers["samples"], numbers["shards"]) == (4, 3 - 1)
    assert numbers["bytes"] == sum(path.stat().st_size for path in built.glob("*.tar"))
    seconds = [frames / fps for _, _, frames, fps, _ in CLIPS]
    assert numbers["hours"] == pytest.approx(sum(seconds) / 3600)
    sizes = [(built.parent / f"{number}.mp4").stat().st_size for number in range(4)]
    told = {
        "seconds": seconds,
        "frames": [clip[2] for clip in CLIPS],
        "fps": [clip[3] for clip in CLIPS],
        "width": [clip[0] for clip in CLIPS],
        "height": [clip[1] for clip in CLIPS],
        "pixels": [clip[0] * clip[1] for clip in CLIPS],
        "video_bytes": sizes,
        "caption_words": [1, 2, 4, 6],
    }
    assert set(told) == set(MEASURES)
    for name, values in told.items():
        five = [np.percentile(values, percent) for percent in (5, 25, 50, 75, 95)]
        assert list(numbers[name]) == ["min", "p5", "p25", "p50", "p75", "p95", "max", "mean"]
        assert list(numbers[name].values()) == pytest.approx([min(values), *five, max(values), np.mean(values)])
    assert numbers["codecs"] == {"h264": 4} and numbers["pix_fmts"] == {"yuv420p": 4}
    assert numbers["sizes"] == {"32x48": 2, "64x48": 1, "32x32": 1}
    assert numbers["rejected"] == {"not_a_video": 2, "missing_file": 1}


def test_the_command_prints_a_table_or_the_same_as_json(built, capsys):
    assert main(["stats", str(built), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers == dataset_stats(built)
    assert main(["stats", str(built)]) == 0
    table = capsys.readouterr().out
    assert table == stats_table(numbers) + "\n"
    lines = {line[:18].strip(): line[18:].split() for line in table.splitlines()}
    assert lines["caption, words"] == ["1", "1", "2", "3", "4", "6", "6", "3"]
    assert lines["duration, s"][0] == "2.00" and lines["duration, s"][-2] == "4.00"
    assert "not_a_video 2 (66.7%), missing_file 1 (33.3%)" in table
    # Columns stand under each other.
    rows = table.splitlines()[2 : 3 + len(MEASURES)]
    assert len({len(row) for row in rows}) == 1


def test_the_buckets_that_auto_chooses_are_listed(built, capsys):
    """All clips are smaller than the paper's videos: they are not enlarged."""
    assert sum(dataset_stats(built)["buckets"].values()) == 4
    assert main(["stats", str(built), "--largest", "48x32x2", "--fps", "8"]) == 0
    table = capsys.readouterr().out
    assert "data.buckets auto would choose" in table and "48x32x2" in table
    for wrong in (["--largest", "48x32"], ["--fps", "0"]):
        assert main(["stats", str(built), *wrong]) == 2


def test_many_kinds_are_summed_up(built):
    numbers = dataset_stats(built) | {"codecs": {f"codec{n}": 1 for n in range(12)}, "rejected": {}}
    table = stats_table(numbers)
    assert "codec7 1 (8.3%), others 4" in table and "codec8" not in table
    assert ["rejected", "none"] in map(str.split, table.splitlines())


def test_what_cannot_be_counted_is_one_line(built, tmp_path, capsys):
    def fails(folder):
        assert main(["stats", str(folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "does not exist" in fails(tmp_path / "none")
    folder = Path(shutil.copytree(built, tmp_path / "out"))
    with (folder / "rejected.jsonl").open("a") as file:
        file.write('{"path": "half')
    assert "rejected.jsonl, line 4: not a JSON object" in fails(folder)
    (folder / "rejected.jsonl").unlink()
    assert dataset_stats(folder)["rejected"] == {}
    sidecar = folder / "shard-000000.index.json"
    sidecar.write_text(sidecar.read_text().replace('"words"', '"word"'))
    assert "lacks 'words'" in fails(folder)
    for sidecar in folder.glob("*.index.json"):
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"samples": []}))
    assert "its sidecars list no samples: run `vtok-shards index" in fails(folder)
