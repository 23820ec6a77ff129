"""The build and its command: sound clips are packed, damaged ones are named, bad input is one line."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import webdataset

from data_tools.cli import main
from data_tools.errors import DataError
from data_tools.packing import build_shards
from data_tools.packing.plan import plan
from data_tools.packing.sources import discover
from data_tools.shapes import render_clips
from data_tools.shards import ShardReader, writer
from data_tools.video.decode import validate
from support.real_clips import BAD_CLIPS, CLIPS, DAMAGED, needs_shared

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    render_clips(folder, 6, seed=0, frames=8, size=32)
    return folder


def write_captions(folder, rows, header=("path", "caption")):
    folder.mkdir(exist_ok=True)
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


def pack(input, output, per_shard=1000):
    return build_shards(input, output, per_shard, progress=False)


def rejected(output):
    return {line["path"]: line for line in map(json.loads, (output / "rejected.jsonl").read_text().splitlines())}


def test_clips_come_out_as_they_went_in(clips, tmp_path):
    summary = pack(clips, tmp_path / "out", per_shard=4)
    assert (summary.packed, summary.rejected, summary.shards, summary.reasons) == (6, 0, 2, {})
    reader = ShardReader(tmp_path / "out")
    rows = list(csv.DictReader((clips / "captions.csv").open()))
    for row, told in enumerate(rows):
        raw = reader.read(row)
        assert raw.key == f"{row:09d}" and raw.extension == ".mp4"
        assert raw.video == (clips / told["path"]).read_bytes()
        assert {name: cell for name, cell in told.items() if cell}.items() <= raw.meta.items()
        assert ("question" in raw.meta) == bool(told["question"])  # an empty cell says nothing
        assert raw.meta["facts"] == validate(raw.video).to_dict()
    assert summary.bytes == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar"))


def test_the_same_input_gives_the_same_bytes(clips, tmp_path):
    for name in ("first", "again"):
        pack(clips, tmp_path / name, per_shard=4)
    assert len(list((tmp_path / "first").iterdir())) == 2 + 2 + 4
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_the_plan_covers_every_clip_once():
    assert plan(7, 3) == [range(0, 3), range(3, 6), range(6, 7)]
    assert plan(6, 3) == [range(0, 3), range(3, 6)]


def test_single_bad_rows_are_rejected_and_move_nothing(clips, tmp_path):
    good = [str(clips / f"00{number}.mp4") for number in range(4)]
    wordings = json.dumps(["A.", "B."])
    rows = [
        (good[0], "One, with a comma.", wordings, "x"),
        ("no.such.file.mp4", "Two.", "", ""),
        (good[1], " ", "", ""),
        (good[1], "Four", "", "", "unquoted, comma"),
        (good[2], "Five.", "not json", ""),
        (good[3], "Six."),
        (good[3], "Seven. Æ水", "", ""),
    ]
    folder = write_captions(tmp_path / "in", rows, ("path", "caption", "captions", "note"))
    summary = pack(folder, tmp_path / "out", per_shard=2)
    assert summary.packed == 2
    assert summary.reasons == {"missing_file": 1, "no_caption": 1, "bad_row": 2, "bad_captions": 1}
    assert rejected(tmp_path / "out")["no.such.file.mp4"]["reason"] == "missing_file"
    reader = ShardReader(tmp_path / "out")
    assert reader.shard_names == ["shard-000000", "shard-000003"]
    first, last = reader.read(0), reader.read(1)
    assert (first.key, first.meta["captions"], first.meta["note"]) == ("000000000", ["A.", "B."], "x")
    assert (last.key, last.meta["caption"]) == ("000000006", "Seven. Æ水")


def test_a_file_that_cannot_be_read_is_rejected(clips, tmp_path, monkeypatch):
    read = Path.read_bytes

    def refuses_the_third(path):
        if path.name == "002.mp4":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuses_the_third)
    assert pack(clips, tmp_path / "out").reasons == {"unreadable": 1}


def test_dots_in_names_do_not_merge_samples(clips, tmp_path):
    folder = write_captions(tmp_path / "in", [("a.b.mp4", "B."), ("a.c.MP4", "C."), ("plain", "D.")])
    for name in ("a.b.mp4", "a.c.MP4", "plain"):
        (folder / name).write_bytes((clips / "000.mp4").read_bytes())
    pack(folder, tmp_path / "out")
    read = list(webdataset.WebDataset(str(tmp_path / "out" / "shard-000000.tar"), shardshuffle=False))
    assert [sample["txt"] for sample in read] == [b"B.", b"C.", b"D."]
    assert ["mp4" in sample for sample in read] == [True, True, False]
    assert [ShardReader(tmp_path / "out").read(row).extension for row in range(3)] == [".mp4", ".mp4", ".video"]


def test_nothing_half_done_bears_a_final_name(clips, tmp_path, monkeypatch):
    def full_at_the_sixth(sample):
        if sample.key == "000000005":
            raise OSError(28, "No space left on device")
        return shards_members(sample)

    shards_members = writer.to_members
    monkeypatch.setattr(writer, "to_members", full_at_the_sixth)
    with pytest.raises(OSError, match="No space left"):
        pack(clips, tmp_path / "out", per_shard=4)
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if "shard-000001" not in path.name)
    assert names == ["build.json"] + [f"shard-000000.{ending}" for ending in ("index.json", "rejected.jsonl", "tar")]
    assert not (tmp_path / "out" / "shard-000001.tar").exists()
    monkeypatch.undo()
    assert pack(clips, tmp_path / "out", per_shard=4).packed == 6


def test_a_build_that_rejects_everything_says_so(tmp_path):
    folder = write_captions(tmp_path / "in", [("a.mp4", "A."), ("b.mp4", "B.")])
    (folder / "a.mp4").write_text("not a video")
    with pytest.raises(DataError, match="all 2 clips were rejected.*rejected.jsonl"):
        pack(folder, tmp_path / "out")
    assert set(rejected(tmp_path / "out")) == {"a.mp4", "b.mp4"}
    assert not list((tmp_path / "out").glob("manifest*"))


@needs_shared
def test_all_real_clips_are_packed(tmp_path):
    summary = pack(CLIPS, tmp_path / "out", per_shard=5)
    assert (summary.packed, summary.rejected, summary.shards) == (12, 0, 3)
    reader = ShardReader(tmp_path / "out")
    by_name = {raw.meta["path"]: raw for raw in map(reader.read, range(12))}
    assert by_name["flipping_a_pancake.mkv"].extension == ".mkv"
    assert by_name["keyboard_rot90.mp4"].meta["facts"]["rotation"] in (90, 270)
    assert by_name["chaplin.mp4"].meta["licence"]


@needs_shared
def test_of_the_bad_clips_only_the_damaged_are_rejected(tmp_path):
    videos = [path for path in sorted(BAD_CLIPS.iterdir()) if path.suffix != ".md"]
    folder = write_captions(tmp_path / "in", [(str(path), path.stem) for path in videos])
    summary = pack(folder, tmp_path / "out")
    reasons = {Path(path).name: line["reason"] for path, line in rejected(tmp_path / "out").items()}
    assert reasons == DAMAGED
    assert summary.packed == len(videos) - len(DAMAGED)


# ---- folders of frames


def write_frames(folder, pictures, caption="A fade."):
    (folder / "frames").mkdir(parents=True)
    (folder / "caption.txt").write_text(caption)
    for number, picture in enumerate(pictures):
        with av.open(str(folder / "frames" / f"frame_{number}.jpg"), "w", format="image2") as container:
            stream = container.add_stream("mjpeg", options={"qmin": "1", "qmax": "2"})
            stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuvj444p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))


def fade(frames, height=32, width=48):
    return [np.full((height, width, 3), 20 * number, np.uint8) for number in range(frames)]


def test_folders_of_frames_become_clips(tmp_path):
    folder = tmp_path / "in"
    write_frames(folder / "sample_000", fade(12))
    write_frames(folder / "sample_001", fade(4, 33, 47))
    (folder / "sample_001" / "fps.txt").write_text("29.97\n")
    write_frames(folder / "sample_002", fade(4))
    (folder / "sample_002" / "meta.json").write_text(json.dumps({"fps": 12, "question": "What?", "answer": "That."}))
    assert pack(folder, tmp_path / "out").packed == 3

    reader = ShardReader(tmp_path / "out")
    first, second, third = (reader.read(row) for row in range(3))
    assert [raw.meta["facts"]["fps"] for raw in (first, second, third)] == pytest.approx([24, 29.97, 12], rel=1e-3)
    assert (first.meta["path"], first.meta["caption"], third.meta["question"]) == ("sample_000", "A fade.", "What?")
    assert (second.meta["facts"]["height"], second.meta["facts"]["width"]) == (34, 48)
    (tmp_path / "first.mp4").write_bytes(first.video)
    with av.open(str(tmp_path / "first.mp4")) as container:
        shades = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
    assert shades == pytest.approx([20 * number for number in range(12)], abs=4)  # frame_10 comes after frame_9


def test_what_is_wrong_with_a_folder_of_frames_is_named(tmp_path):
    folder = tmp_path / "in"
    for name in ("good", "no_caption", "bad_fps", "bad_meta", "frame_sizes_differ", "bad_image", "no_frames"):
        write_frames(folder / name, fade(0 if name == "no_frames" else 3))
    (folder / "no_caption" / "caption.txt").unlink()
    (folder / "bad_fps" / "fps.txt").write_text("fast")
    (folder / "bad_meta" / "meta.json").write_text("[1]")
    write_frames(folder / "frame_sizes_differ" / "x", fade(1, 40, 40))
    (folder / "frame_sizes_differ" / "x" / "frames" / "frame_0.jpg").rename(
        folder / "frame_sizes_differ" / "frames" / "frame_3.jpg"
    )
    (folder / "bad_image" / "frames" / "frame_1.jpg").write_text("no picture")
    assert pack(folder, tmp_path / "out").packed == 1
    lines = rejected(tmp_path / "out")
    assert len(lines) == 6 and all(name == line["reason"] for name, line in lines.items())


def test_frames_encode_to_the_same_bytes(tmp_path):
    write_frames(tmp_path / "in" / "a", fade(5))
    (item,) = discover(tmp_path / "in")
    assert item.load() == item.load()


# ---- bad input as a whole, through the command


def fails(capsys, *arguments):
    """The one line that the command prints before it leaves with code 2."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("vtok-shards: error: ")
    return lines[0]


def test_input_that_cannot_be_used_is_one_line(clips, tmp_path, capsys):
    out = ("--output", tmp_path / "out")
    empty, loose, nothing, columns, latin, facts = (
        tmp_path / name for name in ("empty", "loose", "nothing", "columns", "latin", "facts")
    )
    empty.mkdir()
    loose.mkdir()
    (loose / "a.mp4").write_bytes(b"")
    write_captions(columns, [("a.mp4", "A.")], ("file", "caption"))
    write_captions(nothing, [])
    write_captions(latin, [])
    (latin / "captions.csv").write_bytes("path,caption\na.mp4,caf\xe9\n".encode("utf-16-be"))  # without a mark
    write_captions(facts, [("a.mp4", "A.", "x")], ("path", "caption", "facts"))

    assert "is not a folder" in fails(capsys, "build", tmp_path / "nowhere", *out)
    assert "is empty" in fails(capsys, "build", empty, *out)
    assert "neither captions.csv nor" in fails(capsys, "build", loose, *out)
    line = fails(capsys, "build", columns, *out)
    assert "no column path; it has file, caption" in line
    assert "no rows" in fails(capsys, "build", nothing, *out)
    assert "UTF-8" in fails(capsys, "build", latin, *out)
    assert "column facts" in fails(capsys, "build", facts, *out)
    write_captions(nothing, [("a.mp4", "A."), ("b.mp4", "B.")])
    assert "none of the 2 files" in fails(capsys, "build", nothing, *out)
    assert "at least 1" in fails(capsys, "build", clips, *out, "--samples-per-shard", 0)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("a file")
    assert str(tmp_path / "out") in fails(capsys, "build", clips, *out)


def test_the_command_builds_and_sums_up(clips, tmp_path, capsys):
    rows = [(str(clips / "000.mp4"), "A."), (str(clips / "none.mp4"), "B.")]
    folder = write_captions(tmp_path / "in", rows)
    assert main(["build", str(folder), "--output", str(tmp_path / "out")]) == 0
    line, *table = capsys.readouterr().out.splitlines()
    assert line.startswith("packed 1 clips into 1 shards") and line.endswith("rejected 1")
    assert [row.split() for row in table] == [["rejected", "for", "clips", "share"], ["missing_file", "1", "50.00%"]]


def test_a_finished_build_is_left_alone(clips, tmp_path, capsys):
    command = ["build", str(clips), "--output", str(tmp_path / "out")]
    assert main(command) == 0
    first = capsys.readouterr().out
    written = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert main(command) == 0 and capsys.readouterr().out == first
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == written
    line = fails(capsys, *command, "--samples-per-shard", 2)
    assert "already holds another build: samples_per_shard was 1000, is now 2" in line
    assert main([*command, "--samples-per-shard", "2", "--overwrite"]) == 0
    assert len(ShardReader(tmp_path / "out").shard_sizes) == 3


def test_a_folder_of_other_shards_is_not_touched(clips, tmp_path, capsys):
    pack(clips, tmp_path / "out")
    (tmp_path / "out" / "build.json").unlink()
    for name in ("shard-000000.tar", "shard-000000.index.json", "manifest.json", "manifest.npy", "rejected.jsonl"):
        for option in ((), ("--overwrite",)):
            line = fails(capsys, "build", clips, "--output", tmp_path / "out", *option)
            assert f"out holds {name}, which no build" in line and "move these files away" in line
        (tmp_path / "out" / name).unlink()
    assert main(["build", str(clips), "--output", str(tmp_path / "out")]) == 0


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# By default a hash of the clips' absolute paths divides a table. Captions do not depend on the tests' folder.
SPLIT = ("--val-share", 0.4, "--source-column", "caption")


@pytest.mark.parametrize("sides", [("train", "val"), ("train",), ("val",)])
@pytest.mark.parametrize("option", [(), ("--overwrite",)])
def test_a_split_does_not_take_datasets_of_others_for_its_own(clips, tmp_path, sides, option, capsys):
    for side in sides:
        pack(clips, tmp_path / "out" / side, per_shard=2)
    before = content(tmp_path)
    command = ("build", clips, "--output", tmp_path / "out", "--samples-per-shard", 2, *SPLIT, *option)
    assert f"{sides[0]} holds shard-000000.tar" in fails(capsys, *command)
    assert content(tmp_path) == before


def test_a_build_that_has_only_begun_keeps_its_folder(clips, tmp_path, capsys):
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "train" / "build.json").write_text("{}")
    assert "train holds build.json" in fails(capsys, "build", clips, "--output", tmp_path / "out", *SPLIT)


def test_shards_that_came_later_are_not_merged(clips, tmp_path, capsys):
    pack(clips, tmp_path / "other", per_shard=1)
    command = ("build", clips, "--output", tmp_path / "out", "--samples-per-shard", 2)
    assert main([*map(str, command), "--part", "0/2"]) == 0 and capsys.readouterr()
    for name in ("shard-000005.tar", "shard-000005.index.json"):
        (tmp_path / "out" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    for one in (command, ("merge", tmp_path / "out")):
        assert "out holds shard-000005.tar" in fails(capsys, *one)


def others_tars(clips, folder):
    """Tars of another tool."""
    pack(clips, folder, per_shard=3)
    for path in folder.iterdir():
        if path.suffix != ".tar":
            path.unlink()
    return folder


@pytest.mark.parametrize("through", ["folder", "link to the folder", "links to the tars", "a tar"])
@pytest.mark.parametrize("options", [("--val-share", 0.4), ("--val-share", 0.4, "--overwrite"), ("--overwrite",)])
def test_the_input_is_never_written_over(clips, tmp_path, through, options, capsys):
    tars = others_tars(clips, tmp_path / "out" / "train")
    before = content(tmp_path)
    input = tars / "shard-000000.tar" if through == "a tar" else tars
    if through == "link to the folder":
        (tmp_path / "in").symlink_to(tars)
        input = tmp_path / "in"
    elif through == "links to the tars":
        (tmp_path / "in").mkdir()
        for path in tars.iterdir():
            (tmp_path / "in" / path.name).symlink_to(path)
        input = tmp_path / "in"
    if "--val-share" in options:
        assert "train holds shard-000000.tar" in fails(capsys, "build", input, "--output", tmp_path / "out", *options)
    else:
        assert main(["build", str(input), "--output", str(tmp_path / "out"), *options]) == 0
    assert before.items() <= content(tmp_path).items()


def test_an_overwrite_clears_no_input(clips, tmp_path, capsys):
    """Be it the earlier build's own output, under whatever name."""
    out, again = tmp_path / "out", ("--output", tmp_path / "out", "--overwrite")
    assert main(["build", str(clips), "--output", str(out), *map(str, SPLIT)]) == 0 and capsys.readouterr()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.tar").symlink_to(out / "train" / "shard-000000.tar")
    (tmp_path / "link").symlink_to(out / "train")
    before = content(out)
    for input in (out / "train", out / "val" / "shard-000000.tar", tmp_path / "links", tmp_path / "link"):
        assert "the input lies in" in fails(capsys, "build", input, *again)
    assert content(out) == before


def test_a_table_or_a_clip_in_the_output_is_refused(clips, tmp_path, capsys):
    table = write_captions(tmp_path / "in", [(str(clips / "000.mp4"), "A.")]) / "captions.csv"
    assert "the input lies in" in fails(capsys, "build", table, "--output", tmp_path / "in")
    (tmp_path / "clips" / "out").mkdir(parents=True)
    (tmp_path / "clips" / "out" / "a.mp4").write_bytes((clips / "000.mp4").read_bytes())
    (tmp_path / "clips" / "out" / "a.txt").write_text("A.")
    assert "the input lies in" in fails(capsys, "build", tmp_path / "clips", "--output", tmp_path / "clips" / "out")
    assert not list(tmp_path.rglob("build.json"))


def test_an_overwrite_deletes_what_the_build_made_and_nothing_else(clips, tmp_path):
    out = tmp_path / "out"
    pack(clips, out, per_shard=2)
    foreign = ("shard-0.mp4", "manifest.csv", "build.json.txt", "train/shard-000000.tar", "film.mp4.part")
    (out / "train").mkdir()
    for name in foreign:
        (out / name).write_text("mine")
    (out / "shard-000001.tar.part").write_text("left by a kill")
    build_shards(clips, out, 4, progress=False, overwrite=True)
    assert all((out / name).read_text() == "mine" for name in foreign)
    assert len(list(out.glob("*.tar"))) == 2 and not (out / "shard-000001.tar.part").exists()


def test_the_module_runs_as_a_program(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "data_tools.cli", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    shapes = run("shapes", "--output", str(tmp_path / "clips"), "--clips", "3", "--seed", "1")
    assert shapes.returncode == 0 and "rendered 3 clips" in shapes.stdout
    failed = run("build", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out"))
    assert failed.returncode == 2 and failed.stdout == ""
    assert failed.stderr.count("\n") == 1 and "Traceback" not in failed.stderr
