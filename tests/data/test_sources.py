"""What can go into a build: every layout gives the same clips with the same texts."""

import datetime
import gzip
import io
import json
import sys
import tarfile

import numpy as np
import pytest

from data_tools.cli import main
from data_tools.errors import BadVideo, DataError
from data_tools.packing import build_shards
from data_tools.packing.prepare import Recipe
from data_tools.packing.sources import Columns, discover
from data_tools.packing.sources.tables import grouped
from data_tools.shapes import render_clips
from data_tools.shards import ShardReader
from data_tools.texts import describe


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    render_clips(folder, 4, seed=0, frames=16, size=32)
    return folder


ROWS = [
    {"file": "000.mp4", "text": "Ett.", "licence": "MIT", "score": 0.5},
    {"file": "001.mp4", "text": "Two, with a comma\nand a new line.", "licence": "BSD", "score": 0.25},
    {"file": "000.mp4", "text": "One, again. 水", "licence": "other", "score": 0.75},
]
COLUMNS = Columns(video="file", caption="text")


def write_table(path, rows):
    if path.suffix == ".csv":
        lines = [",".join(rows[0])]
        lines += [",".join('"' + str(cell).replace('"', '""') + '"' for cell in row.values()) for row in rows]
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        pa = pytest.importorskip("pyarrow")
        pa.parquet = pytest.importorskip("pyarrow.parquet")
        pa.parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


@pytest.fixture
def folder(clips, tmp_path):
    for path in clips.glob("*.mp4"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def packed(input, output, **options):
    build_shards(input, output, progress=False, **options)
    reader = ShardReader(output)
    return [reader.read(row) for row in range(len(reader))]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("as_file", [True, False])
def test_tables_of_every_kind_give_the_same(clips, folder, tmp_path, ending, as_file):
    table = write_table(folder / f"captions{ending}", ROWS)
    one, two = packed(table if as_file else folder, tmp_path / "out", columns=COLUMNS)
    assert one.video == (clips / "000.mp4").read_bytes() and one.meta["path"] == "000.mp4"
    assert (one.meta["caption"], one.meta["captions"]) == ("Ett.", ["Ett.", "One, again. 水"])
    assert (two.meta["caption"], "captions" in two.meta) == ("Two, with a comma\nand a new line.", False)
    assert one.meta["licence"] == "MIT" and float(two.meta["score"]) == 0.25
    assert not {"file", "text"} & one.meta.keys()


def test_rows_are_grouped_in_the_order_of_their_first():
    order, bounds = grouped(np.array([7, 3, 7, 9, 3, 7], np.uint64))
    assert [order[a:b].tolist() for a, b in zip(bounds, bounds[1:])] == [[0, 2, 5], [1, 4], [3]]


def test_conversations_become_questions_and_answers(folder, tmp_path):
    turns = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "<video>\nWhat moves?"},
        {"from": "gpt", "value": "A circle."},
        {"from": "human", "value": "Where? <image>"},
        {"from": "gpt", "value": "Left."},
    ]
    rows = [{"video": "000.mp4", "conversations": turns}, {"video": "001.mp4", "conversations": turns[3:]}]
    rows += [{"video": "002.mp4", "conversations": bad} for bad in (turns[:2], [{"from": "gpt"}], "[]")]
    write_table(folder / "train.jsonl", rows)
    one, two = packed(folder / "train.jsonl", tmp_path / "out", columns=Columns(video="video"))
    pairs = [["What moves?", "A circle."], ["Where?", "Left."]]
    assert one.meta["conversations"] == pairs and two.meta["conversations"] == pairs[1:]
    assert (one.meta["question"], one.meta["answer"], one.meta["caption"]) == ("What moves?", "A circle.", "")
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "bad_conversations"


def test_texts_from_whatever_fields_there_are():
    def told(*rows):
        return describe("a.mp4", rows, Columns())

    assert told({"caption": ["A.", "B.", "A."]})["captions"] == ["A.", "B."]
    assert told({"captions": '["A.", "B."]'}) == {"path": "a.mp4", "caption": "A.", "captions": ["A.", "B."]}
    asked = told({"caption": "A.", "question": "Q?", "answer": "R."}, {"question": "S?", "answer": "T."})
    assert (asked["question"], asked["conversations"]) == ("Q?", [["Q?", "R."], ["S?", "T."]])
    assert told({"conversations": json.dumps([{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "R."}])})
    for row, reason in (
        ({"caption": " "}, "no_caption"),
        ({"caption": 7}, "bad_caption"),
        ({"caption": "\ud800"}, "bad_text"),
        ({"caption": "A.", "captions": "[1]"}, "bad_captions"),
        ({"caption": "A.", "conversations": [1]}, "bad_conversations"),
    ):
        with pytest.raises(BadVideo) as caught:
            told(row)
        assert caught.value.reason == reason


def test_parts_of_one_video_are_clips_of_their_own(clips, folder, tmp_path):
    rows = [("0", "1", "First."), ("0:01", "0:00:01.5", "Second."), ("1.5", "", "Third."), ("", "0.5", "Fourth.")]
    rows += [("5", "6", "Past."), ("1", "0", "Turned."), ("x", "1", "Typed.")]
    lines = [f"000.mp4,{caption},{start},{end}" for start, end, caption in rows]
    (folder / "captions.csv").write_text("\n".join(["path,caption,start,end", *lines]))
    samples = packed(folder, tmp_path / "out")
    assert [sample.meta["facts"]["frames"] for sample in samples] == [8, 4, 4, 4]  # 8 frames a second
    assert [sample.meta["caption"] for sample in samples] == ["First.", "Second.", "Third.", "Fourth."]
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "out" / "rejected.jsonl").open()]
    assert reasons == ["empty_span", "bad_span", "bad_span"]


def test_parts_whose_times_have_another_name_are_refused(folder):
    """The captions of all parts became those of the whole video. A file a row was cut before: its times are facts."""
    table = folder / "captions.csv"
    table.write_text("path,start_time,End_Time,caption\n000.mp4,0,1,A door.\n001.mp4,2,3,A cat.\n000.mp4,1,2,A dog.\n")
    with pytest.raises(
        DataError, match="rows of 000.mp4 differ in start_time and End_Time: rename these columns to sta"
    ):
        discover(folder)
    table.write_text("path,start_time,caption\n000.mp4,1,A door.\n001.mp4,2,A cat.\n000.mp4,1,A dog.\n")
    assert [item.load().span for item in discover(folder)] == [None, None]


def test_limits_and_filters(folder, tmp_path, capsys):
    write_table(folder / "captions.csv", [{"path": f"00{n}.mp4", "caption": "A."} for n in range(3)])
    (folder / "001.mp4").write_bytes((folder / "000.mp4").read_bytes()[:-5])
    shorter = packed(folder, tmp_path / "shorter", recipe=Recipe(max_seconds=1.0))
    assert {sample.meta["facts"]["frames"] for sample in shorter} == {8}
    for option, reason in (("--min-frames", "too_few_frames"), ("--min-side", "too_small")):
        out = tmp_path / reason
        assert main(["build", str(folder), "--output", str(out), option, "40"]) == 2
        assert "were rejected" in capsys.readouterr().err
        assert reason in {json.loads(line)["reason"] for line in (out / "rejected.jsonl").open()}
    command = ["build", str(folder), "--output", str(tmp_path / "small"), "--short-side", "16", "--fps", "24"]
    assert main([*command, "--codec", "h264", "--max-seconds", "1"]) == 0
    facts = ShardReader(tmp_path / "small").read(0).meta["facts"]
    assert (facts["width"], facts["height"], facts["fps"]) == (16, 16, pytest.approx(24))
    assert main(["build", str(folder), "--output", str(tmp_path / "x"), "--max-seconds", "-1"]) == 2


def test_videos_with_their_texts_beside_them(clips, folder, tmp_path):
    (folder / "deep").mkdir()
    (folder / "000.mp4").rename(folder / "deep" / "a.b.mp4")
    (folder / "deep" / "a.b.txt").write_text("Deep.\n")
    (folder / "001.json").write_text(json.dumps({"caption": "One.", "licence": "MIT"}))
    (folder / "002.json").write_text("[]")
    samples = packed(folder, tmp_path / "out")
    assert [(s.meta["path"], s.meta["caption"]) for s in samples] == [("001.mp4", "One."), ("deep/a.b.mp4", "Deep.")]
    assert samples[0].meta["licence"] == "MIT"
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "out" / "rejected.jsonl").open()]
    assert reasons == ["bad_meta", "no_caption"]


def test_every_file_is_packed_or_rejected(clips, folder, tmp_path):
    """Links to folders are followed; texts have names of several forms; what has no video is named."""
    video = (clips / "000.mp4").read_bytes()
    for path in folder.glob("00[0-3].mp4"):
        path.unlink()
    real = tmp_path.parent / f"{tmp_path.name}-real"
    real.mkdir()
    accents = ("e\u0301.mp4", "\u00e9.txt")  # a Mac's form, and Linux's
    for name, text in (("a.mp4", "a.mp4.txt"), ("b.MP4", "b.TXT"), ("c.odd", "c.txt"), accents, ("", "d.txt")):
        if name:
            (real / name).write_bytes(video)
        (real / text).write_text(f"{text}.")
    (folder / "linked").symlink_to(real)
    (real / "back").symlink_to(folder)
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    samples = packed(folder, tmp_path / "out")
    told = {sample.meta["path"]: sample.meta["caption"] for sample in samples}
    assert told.pop("linked/e\u0301.mp4") == "\u00e9.txt."
    assert told == {"linked/a.mp4": "a.mp4.txt.", "linked/b.MP4": "b.TXT.", "linked/c.odd": "c.txt."}
    assert len(packed(folder, tmp_path / "out")) == 4  # the output is no part of the input
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").open()]
    reasons = {line["path"]: line["reason"] for line in lines}
    assert reasons == {"gone.mp4": "missing_file", "linked/d.txt": "no_video"}


@pytest.mark.parametrize("plan", ["{}", '{"datasets": {"": 1}, "name": "app"}', "[1]", "no json", None])
def test_a_build_json_of_another_tool_hides_no_clips(clips, tmp_path, plan, capsys):
    for name in ("a", "app/b", "app/deep/c"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / f"{name}.mp4").write_bytes((clips / "000.mp4").read_bytes())
        (tmp_path / "in" / f"{name}.txt").write_text(f"{name}.")
    if plan is None:
        (tmp_path / "in" / "app" / "build.json").mkdir()
    else:
        (tmp_path / "in" / "app" / "build.json").write_text(plan)
    samples = packed(tmp_path / "in", tmp_path / "in" / "out")
    assert [sample.meta["caption"] for sample in samples] == ["a.", "app/b.", "app/deep/c."]
    assert "left out" not in capsys.readouterr().err
    assert packed(tmp_path / "in", tmp_path / "in" / "out") == samples
    told = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert told == [f"{tmp_path / 'in' / 'out'} is left out: its build.json says that it is the output of a build"]


def test_tars_in_subfolders_and_concatenated_ones_are_read(clips, tmp_path):
    def tar(*names):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as file:
            for name in names:
                for ending, body in ((".mp4", (clips / "000.mp4").read_bytes()), (".txt", name.encode())):
                    info = tarfile.TarInfo(name + ending)
                    info.size = len(body)
                    file.addfile(info, io.BytesIO(body))
        return data.getvalue()

    (tmp_path / "in" / "part").mkdir(parents=True)
    (tmp_path / "in" / "x.tar").write_bytes(tar("a") + tar("b", "c"))
    (tmp_path / "in" / "part" / "x.TAR").write_bytes(tar("d"))
    samples = packed(tmp_path / "in", tmp_path / "out")
    assert [(s.meta["caption"], s.meta["path"]) for s in samples] == [
        ("d", "part/x.TAR/d"), ("a", "x.tar/a"), ("b", "x.tar/b"), ("c", "x.tar/c")
    ]  # fmt: skip
    (tmp_path / "in" / "y.mp4").write_bytes(b"")
    (tmp_path / "in" / "y.txt").write_bytes(b"")
    with pytest.raises(DataError, match="holds tars .* and clips"):
        discover(tmp_path / "in")


@pytest.mark.parametrize(
    "damage", [lambda data: data[:1000], lambda data: data[:1700], gzip.compress, lambda data: b"<html>" * 100]
)
def test_a_damaged_tar_among_sound_ones_is_named_with_what_to_do(clips, tmp_path, damage, capsys):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(clips / "000.mp4", "a.mp4")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(data.getvalue())
    (tmp_path / "in" / "b.tar").write_bytes(damage(data.getvalue()))
    assert main(["build", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert "b.tar cannot be read as a tar" in line and line.endswith(": repair or remove it")


def test_tars_are_packed_anew(clips, tmp_path):
    build_shards(clips, tmp_path / "first", 3, progress=False)
    again = packed(tmp_path / "first", tmp_path / "again", samples_per_shard=2, workers=2)
    first = ShardReader(tmp_path / "first")
    assert again == [first.read(row) for row in range(4)]
    assert len(ShardReader(tmp_path / "again").shard_sizes) == 2
    (one,) = packed(tmp_path / "first" / "shard-000001.tar", tmp_path / "one")
    assert one.meta == first.read(3).meta


def test_tars_of_others_are_understood(clips, tmp_path):
    with tarfile.open(tmp_path / "others.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, body in (
            ("./b/x.mp4", (clips / "000.mp4").read_bytes()),
            ("./b/x.jpg", b"a picture"),
            ("./b/x.json", b'{"text": "X.", "facts": 1}'),
            ("./b/y.mp4", (clips / "001.mp4").read_bytes()),
            ("./b/y.txt", "Ypsilon, 水.".encode()),
            ("./b/z.txt", b"no video"),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(body), 1.5
            (tmp_path / "body").write_bytes(body)
            with (tmp_path / "body").open("rb") as file:
                tar.addfile(info, file)
    one, two = packed(tmp_path / "others.tar", tmp_path / "out", columns=Columns(caption="text"))
    assert (one.meta["caption"], one.meta["path"], two.meta["caption"]) == ("X.", "others.tar/./b/x", "Ypsilon, 水.")
    assert one.video == (clips / "000.mp4").read_bytes()
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert (json.loads(line)["path"], json.loads(line)["reason"]) == ("others.tar/./b/z", "no_video")


def test_members_of_tars_are_read_as_the_index_reads_them(clips, tmp_path):
    video = (clips / "000.mp4").read_bytes()
    with tarfile.open(tmp_path / "others.tar", "w") as tar:
        for name, body in (
            ("README", b"of no sample"),
            ("a.v2.MP4", video),
            ("a.v2.caption", b"A dot in its name."),
            ("b.qt", video),
            ("b.txt", b"An ending of its own."),
            ("c.mp4", video),
            ("c.webm", video),
            ("c.txt", b"Which one?"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    samples = packed(tmp_path / "others.tar", tmp_path / "out")
    assert [(s.extension, s.meta["caption"]) for s in samples] == [
        (".mp4", "A dot in its name."),
        (".qt", "An ending of its own."),
    ]
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert (json.loads(line)["path"], json.loads(line)["reason"]) == ("others.tar/c", "several_videos")


def test_values_that_json_does_not_know_are_written_as_text(folder, tmp_path):
    rows = [{"path": "000.mp4", "caption": "A.", "day": datetime.date(2026, 1, 2), "nothing": float("nan")}]
    (sample,) = packed(write_table(folder / "captions.parquet", rows), tmp_path / "out")
    assert sample.meta["day"] == "2026-01-02" and "nothing" not in sample.meta


def test_input_that_cannot_be_used_is_named(folder, monkeypatch, tmp_path):
    def refused(path, match):
        with pytest.raises(DataError, match=match) as caught:
            discover(path)
        assert "\n" not in str(caught.value)

    (folder / "a.json").write_text("{}")
    refused(folder / "a.json", "is not a JSON list")
    (folder / "a.json").write_text("{")
    refused(folder / "a.json", "is not JSON")
    refused(folder / "000.mp4", "neither a table")
    (folder / "a.tar").write_text("x" * 2000)
    refused(folder / "a.tar", "cannot be read as a tar")
    write_table(folder / "captions.csv", ROWS)
    refused(folder, "no column path; it has file.*--video-column")
    (folder / "captions.jsonl").write_text("")
    refused(folder, "holds captions.csv and captions.jsonl")
    (folder / "b.parquet").write_text("no parquet")
    pytest.importorskip("pyarrow")
    refused(folder / "b.parquet", "cannot be read as Parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    refused(folder / "b.parquet", "needs pyarrow")
    (folder / "captions.jsonl").unlink()
    with pytest.raises(DataError, match="is the input"):
        build_shards(folder, folder, progress=False, columns=COLUMNS)
