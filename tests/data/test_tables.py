"""Every row of a table is packed, or rejected with a reason. One bad row or cell costs no other."""

import json
import shutil

import pytest

from data_tools.errors import BadVideo, DataError
from data_tools.packing import build_shards
from data_tools.packing.sources import Columns, discover
from data_tools.shapes import render_clips
from data_tools.shards import ShardReader


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    render_clips(folder, 4, seed=0, frames=16, size=32)
    (folder / "captions.csv").unlink()
    return folder


def told(table, text, **columns):
    """What each clip of a table says: its caption, or (name, reason, detail) of its rejection."""
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    source, found = discover(table, Columns(**columns)), []
    for number in range(len(source)):
        try:
            found.append(source[number].load().meta["caption"])
        except BadVideo as problem:
            found.append((source[number].name, problem.reason, problem.detail))
    table.unlink()
    return found


CSV = "path,caption\n000.mp4,One.\n001.mp4,{}\n002.mp4,Three.\n003.mp4,Four.\n"


@pytest.mark.parametrize(
    "cell, detail",
    [
        ('"Hello there', "line 3: a quote is not closed"),
        ('"Hello" there', "line 3: a quote is not closed"),
        ("Hello, there", "line 3: it has 3 cells, the header has 2"),
        ("Café".encode("cp1252").decode("utf-8", "surrogateescape"), "line 3: its text: byte 0xe9 is not UTF-8"),
    ],
)
def test_a_bad_row_is_rejected_with_its_line(folder, cell, detail):
    one, (name, reason, why), three, four = told(folder / "t.csv", CSV.format(cell).encode("utf-8", "surrogateescape"))
    assert (one, three, four) == ("One.", "Three.", "Four.")
    assert (name, reason) == ("001.mp4", "bad_row") and why.startswith(detail)


def test_a_quote_that_closes_in_another_row_swallows_none(folder):
    text = CSV.format('"Two').replace("Four.", 'Four."')
    one, two, three, four = told(folder / "t.csv", text)
    assert (one, three) == ("One.", "Three.") and "closes in another row" in two[2]
    assert four == 'Four."'
    lines = 'Two,\nof "several" lines, and one more'
    cell = '"' + lines.replace('"', '""') + '"'
    assert told(folder / "t.csv", CSV.format(cell))[1] == lines


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_delimiter_and_the_encoding_are_recognised(folder, delimiter, encoding):
    text = "path,caption,day\n000.mp4,Ein Hund läuft.,1\n".replace(",", delimiter).encode(encoding)
    assert told(folder / "t.csv", text) == told(folder / "t.tsv", text) == ["Ein Hund läuft."]


def test_tables_of_unknown_encodings_are_one_line(folder):
    with pytest.raises(DataError, match="holds zero bytes, as UTF-16 without a mark"):
        told(folder / "t.csv", CSV.encode("utf-16-le"))
    with pytest.raises(DataError, match="line 1: the header cannot be read: its text: byte 0xf6"):
        told(folder / "t.csv", "path,caption,größe\n".encode("cp1252"))
    with pytest.raises(DataError, match="line 2: byte 0xe9 is not UTF-8"):
        told(folder / "t.json", '[{"path": "000.mp4",\n"caption": "Café"}]'.encode("cp1252"))
    bad, good = '\n{"path": "000.mp4", "caption": "Café"}\n'.encode("cp1252"), b'{"path": "001.mp4", "caption": "B."}'
    with pytest.raises(DataError, match="none of its 1 rows can be read; the first: line 2: its text: byte 0xe9"):
        told(folder / "t.jsonl", bad)
    one, two = told(folder / "t.jsonl", bad + good)
    assert one[:2] == ("t.jsonl, row 1", "bad_row") and one[2].startswith("line 2: its text: byte 0xe9") and two == "B."


def test_slips_of_a_header_are_one_line(folder):
    with pytest.raises(DataError, match="its lines end with carriage returns alone"):
        told(folder / "t.csv", "path,caption\r000.mp4,A.\r")
    with pytest.raises(DataError, match="has two columns caption: rename one"):
        told(folder / "t.csv", "path,caption,caption,,\n000.mp4,A.,B.,,\n")
    assert told(folder / "t.csv", "path,caption,,\n000.mp4,A.,,\n") == ["A."]


def test_names_written_on_other_systems_are_found(folder):
    """Windows writes backslashes; a Mac may write é in two characters."""
    (folder / "inner").mkdir()
    shutil.copy(folder / "000.mp4", folder / "inner/x.mp4")
    composed, parts = "caf\u00e9.mp4", "cafe\u0301.mp4"
    for there, named in ((composed, parts), (parts, composed)):
        shutil.copy(folder / "000.mp4", folder / there)
        text = f"path,caption\ninner\\x.mp4,A.\n{named},B.\n"
        assert told(folder / "t.csv", text) == ["A.", "B."]
        (folder / there).unlink()
    shutil.copy(folder / "000.mp4", folder / "a\\b.mp4")  # a name that has a backslash itself
    assert told(folder / "t.csv", "path,caption\na\\b.mp4,A.\n") == ["A."]


def test_a_file_in_another_spelling_is_the_same_clip(folder):
    """Its captions come together, and a split keeps it on one side."""
    table, place = folder / "t.csv", folder.resolve() / "000.mp4"
    names = ["000.mp4", "./000.mp4", "x/../000.mp4", str(place), f"file://{place}", '" 000.mp4 "']
    table.write_text("path,caption\n" + "".join(f"{name},{number}.\n" for number, name in enumerate(names)))
    (item,) = discover(table)
    assert item.load().meta["captions"] == [f"{number}." for number in range(len(names))]
    table.write_text("path,start,end,caption\n" + "".join(f"{n},,{end},A.\n" for n, end in zip(names, "123456")))
    assert len(set(discover(table).origins())) == 1
    spans = ["0,1", "0.0,1.00", ",1", "0:00:00,0:01"]
    table.write_text("path,start,end,caption\n" + "".join(f"000.mp4,{span},A.\n" for span in spans))
    assert len(discover(table)) == 1
    table.unlink()


def test_accents_may_differ_from_part_to_part(folder):
    """A Mac's folder holds a file that Linux wrote."""
    inner = folder / "cafe\u0301"
    inner.mkdir()
    shutil.copy(folder / "000.mp4", inner / "\u00e9.mp4")
    assert told(folder / "t.csv", "path,caption\ncaf\u00e9/e\u0301.mp4,A.\n") == ["A."]
    shutil.rmtree(inner)


def test_a_text_with_a_zero_byte_is_rejected(folder):
    rows = [{"path": "000.mp4", "caption": "bad\0cap"}, {"path": "001.mp4", "question": "a\0", "answer": "B."}]
    text = "\n".join(map(json.dumps, rows))
    assert [reason for _, reason, _ in told(folder / "t.jsonl", text)] == ["bad_text"] * 2


def test_one_text_in_the_column_of_several_is_named(folder):
    """It is no caption: it may be a list of which a part is lost."""
    ((_, reason, detail),) = told(folder / "t.json", json.dumps([{"path": "000.mp4", "captions": "A dog runs."}]))
    assert reason == "bad_captions"
    assert detail == "'captions' is not a list of texts, in a table as JSON, but 'A dog runs.'"


@pytest.mark.parametrize("as_text", [False, True])
def test_messages_name_videos_themselves(folder, as_text):
    """Qwen's form and that of transformers. A cell of a .csv holds the turns as JSON."""

    def row(*names):
        shown = [{"type": "video", field: name} for field, name in zip(("video", "path"), names)]
        parts = [*shown, {"type": "text", "text": "What?"}]
        turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "A dog."}]
        return {"messages": json.dumps(turns) if as_text else turns}

    table = folder / "t.jsonl"
    table.write_text("\n".join(map(json.dumps, (row("000.mp4"), row("001.mp4", "002.mp4"), row("none.mp4")))))
    one, two, lost = discover(table)
    clip = one.load()
    assert clip.video == (folder / "000.mp4").read_bytes() and clip.meta["path"] == "000.mp4"
    assert clip.meta["conversations"] == [["What?", "A dog."]]
    assert [place["path"] for place in two.load().meta["media"]] == ["001.mp4", "002.mp4"]
    with pytest.raises(BadVideo, match="no file"):
        lost.load()
    table.unlink()


def test_urls_are_refused_as_such(folder):
    with pytest.raises(DataError, match="the first is http://127.0.0.1:9/a.mp4: download them"):
        told(folder / "t.csv", "path,caption\nhttp://127.0.0.1:9/a.mp4,A.\n")


def test_long_cells_are_read(folder):
    assert told(folder / "t.csv", CSV.format("x" * 200_000))[1] == "x" * 200_000


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_rows_may_differ_in_their_fields(folder, ending):
    rows = [{"id": 0}, {"path": "000.mp4", "caption": None}, {"path": "001.mp4", "caption": "B."}, {"id": 1}, 7]
    text = json.dumps(rows) if ending == ".json" else "\n".join(map(json.dumps, rows))
    first, second, third, fourth, fifth = told(folder / f"t{ending}", text)
    assert first[:2] == (f"t{ending}, row 1", "bad_row") and fourth[:2] == (f"t{ending}, row 4", "bad_row")
    assert second[:2] == ("000.mp4", "no_caption") and third == "B." and "not a JSON object" in fifth[2]


def test_videos_are_named_by_lists_and_structs_too(folder):
    for cell in (["000.mp4"], {"path": "000.mp4", "bytes": None}, "000.mp4"):
        assert told(folder / "t.json", json.dumps([{"videos": cell, "caption": "A."}]), video="videos") == ["A."]
    rows = [{"videos": ["000.mp4", "001.mp4"], "caption": "A."}, {"videos": "000.mp4", "caption": "B."}]
    two, one = told(folder / "t.json", json.dumps(rows), video="videos")
    assert (
        one == "B." and two[:2] == ("t.json, row 1", "bad_row") and "2 videos or images need a conversation" in two[2]
    )


def test_videos_inside_a_parquet_are_packed(folder, tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    videos = [(folder / f"00{number}.mp4").read_bytes() for number in range(2)]
    rows = [{"video": {"bytes": videos[0], "path": "a.mp4"}, "caption": "A.", "tags": ["x"]}]
    rows += [{"video": {"bytes": videos[1], "path": None}, "caption": "B.", "tags": []}]
    rows += [{"video": {"bytes": None, "path": None}, "caption": "C.", "tags": None}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    build_shards(tmp_path / "t.parquet", tmp_path / "out", progress=False, columns=Columns(video="video"))
    reader = ShardReader(tmp_path / "out")
    one, two = (reader.read(row) for row in range(2))
    assert [one.video, two.video] == videos and (one.extension, two.extension) == (".mp4", ".video")
    assert (one.meta["path"], two.meta["path"], one.meta["tags"]) == ("a.mp4", "t.parquet, row 2", ["x"])
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == "t.parquet, row 3"


def test_rows_that_hold_their_videos_are_clips_of_their_own(folder, tmp_path):
    """Whatever the names beside the bytes; names without bytes are paths."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    videos = [(folder / f"00{number}.mp4").read_bytes() for number in range(3)]
    rows = [{"video": {"bytes": video, "path": "clip.mp4"}, "caption": video[-4:].hex()} for video in videos]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    clips = [item.load() for item in discover(tmp_path / "t.parquet")]
    assert [(clip.video, clip.meta["caption"]) for clip in clips] == [(v, v[-4:].hex()) for v in videos]
    with pytest.raises(DataError, match="leaves none for one side: all 3 clips are of one recording.*--source-column"):
        build_shards(tmp_path / "t.parquet", tmp_path / "out", progress=False, val_share=0.3)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    paths = [{"bytes": None, "path": str(folder / "000.mp4")}] * 2
    table = pa.table({"video": pa.array(paths, kind), "caption": pa.array([b"A.", b"B."], pa.binary())})
    parquet.write_table(table, tmp_path / "names.parquet")
    (item,) = discover(tmp_path / "names.parquet")
    assert item.load().meta["captions"] == ["A.", "B."]
