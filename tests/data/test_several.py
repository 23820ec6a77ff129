"""Conversations about several videos and images: from the published forms to shards and samples."""

import json

import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from data_tools.dataset import ClipDataset
from data_tools.errors import BadVideo
from data_tools.inspect.index import index_shards
from data_tools.inspect.show import write_report
from data_tools.inspect.stats import dataset_stats
from data_tools.inspect.verify import verify_shards
from data_tools.packing import build_shards
from data_tools.packing.sources import discover
from data_tools.shapes import render_clips
from data_tools.shards import RawSample, ShardReader
from data_tools.shards.samples import from_members, to_members
from data_tools.texts import describe, describe_several, media_cells
from data_tools.video.views import decoder_view, tokeniser_view

LLAVA = {
    "id": 1, "image": ["a.png", "b.png"],
    "conversations": [{"from": "human", "value": "<image>\n<image>\nWhat differs?"},
                      {"from": "gpt", "value": "<image> 1."},
                      {"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Yes."}],
}  # fmt: skip
VIDEOS = {
    "id": 2, "video": ["000.mp4", "001.mp4"],
    "conversations": [{"from": "human", "value": "First <image>, then <image>\nWhich?"},
                      {"from": "gpt", "value": "1."}],
}  # fmt: skip
MESSAGES = {
    "images": ["a.png"], "videos": ["001.mp4"],
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello <video>?"},
                 {"role": "assistant", "content": "Hi."}, {"role": "user", "content": " Like this one: <image>"},
                 {"role": "assistant", "content": "No."}],
}  # fmt: skip
TYPED = {
    "images": ["a.png", "b.png"], "videos": [],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Is <image> a word?", "image": None},
                                              {"type": "image", "text": None}, {"type": "image_url"}]},
                 {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}],
}  # fmt: skip
PLAIN = {"images": ["b.png", "a.png"], "question": "Alike?", "answer": "No.", "caption": "Two."}
ONE = {"videos": ["000.mp4"], "images": [], "messages": MESSAGES["messages"][1:3]}
NONE = {"videos": [], "images": [], "messages": [{"role": "user", "content": "Hello?"}, MESSAGES["messages"][2]]}

# The row; its questions, and (medium, turn, place in the question) in the order of the conversation.
READ = {
    "llava": (LLAVA, ["What differs?", "Sure?"], [("a.png", 0, 0), ("b.png", 0, 0)]),
    "videos": (VIDEOS, ["First , then Which?"], [("000.mp4", 0, 6), ("001.mp4", 0, 13)]),
    "messages": (MESSAGES, ["Hello ?", "Like this one:"], [("001.mp4", 0, 6), ("a.png", 1, 14)]),
    "typed": (TYPED, ["Is <image> a word?"], [("a.png", 0, 18), ("b.png", 0, 18)]),
    "plain": (PLAIN, ["Alike?"], [("b.png", 0, 0), ("a.png", 0, 0)]),
}


@pytest.mark.parametrize("form", READ)
def test_published_rows_are_read_as_they_are(form):
    row, questions, places = READ[form]
    cells = media_cells(row)
    meta, order = describe_several("x", row, [one.kind for one in cells])
    assert [question for question, _ in meta["conversations"]] == questions
    found = [(cells[number].cell, place["turn"], place["at"]) for number, place in zip(order, meta["media"])]
    assert found == places and meta["caption"] == "" and "captions" not in meta
    assert {"images", "videos", "image", "video"}.isdisjoint(meta)


@pytest.mark.parametrize(
    "row, reason",
    [
        (VIDEOS | {"video": ["a.mp4"] * 3}, "bad_conversations"),
        (MESSAGES | {"images": ["a.png", "b.png"]}, "bad_conversations"),
        (MESSAGES | {"messages": MESSAGES["messages"][:2]}, "bad_conversations"),
        ({"video": ["a.mp4", "b.mp4"], "caption": "Two clips."}, "bad_row"),
    ],
)
def test_what_does_not_fit_together_has_a_reason(row, reason):
    with pytest.raises(BadVideo) as caught:
        describe_several("x", row, [one.kind for one in media_cells(row)])
    assert caught.value.reason == reason


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    render_clips(folder, 2, seed=0, frames=16, size=32)
    (folder / "captions.csv").unlink()
    Image.new("RGB", (36, 24), "red").save(folder / "a.png")
    Image.new("RGB", (24, 40), "blue").save(folder / "b.png")
    bad = [
        LLAVA | {"image": ["a.png", "gone.png"]},
        LLAVA | {"start": 1},
        {"image": ["a.png", 7]} | PLAIN | {"images": []},
    ]
    rows = [*(row for row, _, _ in READ.values()), ONE, NONE, *bad]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("shards") / "out"
    done = build_shards(folder / "rows.jsonl", output, 3, progress=False)
    assert (done.packed, done.reasons) == (7, {"missing_file": 1, "bad_span": 1, "bad_row": 1})
    return output


def test_shards_hold_every_medium_and_its_place(shards, folder):
    reader = ShardReader(shards)
    samples = [reader.read(row) for row in range(len(reader))]
    for sample, (_, questions, places) in zip(samples, READ.values()):
        assert (sample.video, *sample.others) == tuple((folder / name).read_bytes() for name, _, _ in places)
        media = sample.meta["media"]
        assert [(m["path"], m["turn"], m["at"]) for m in media] == places
        assert [m["member"] for m in media] == [f"{n}.{name[-3:]}" for n, (name, _, _) in enumerate(places)]
        assert [question for question, _ in sample.meta["conversations"]] == questions
        assert sample.meta["facts"]["codec"] == "several"
    assert reader.rows["frames"].tolist() == [2, 32, 17, 2, 2, 16, 0]
    assert reader.rows["words"].tolist() == [0] * 7 and reader.most_media == 2
    assert [sample.extension for sample in samples[5:]] == [".mp4", ""] and not samples[5].others


def test_they_are_verified_shown_counted_and_packed_again(shards, tmp_path):
    assert verify_shards(shards, decode=True).faults == []
    write_report(shards, tmp_path / "page.html")
    assert "0.png, 1.png" in (tmp_path / "page.html").read_text()
    assert dataset_stats(shards)["kinds"] == {"several": 5, "video": 1, "text": 1}
    build_shards(shards, tmp_path / "again", progress=False)
    old, new = ShardReader(shards), ShardReader(tmp_path / "again")
    assert [new.read(row) for row in range(7)] == [old.read(row) for row in range(7)]
    for path in (tmp_path / "again").iterdir():
        if path.suffix != ".tar":
            path.unlink()
    done = index_shards(tmp_path / "again")
    assert (done.samples, done.merged, done.reasons) == (7, 0, {})
    assert ShardReader(tmp_path / "again").most_media == 2


def test_a_listed_member_that_is_missing_has_a_reason():
    facts = {"frames": 2, "duration": 0.0}
    media = [{"member": f"{n}.png", "turn": 0, "at": 0, "facts": facts} for n in range(2)]
    meta = {"caption": "", "path": "x", "conversations": [["Alike?", "No."]], "media": media, "facts": facts}
    sample = RawSample("k", b"1", ".png", describe("x", [meta]) | {"facts": facts}, others=(b"2",))
    members = to_members(sample)
    assert from_members("k", members) == sample
    del members["1.png"]
    with pytest.raises(BadVideo, match="missing_file"):
        from_members("k", members)


def test_a_sample_shows_each_medium_at_its_own_length(shards):
    views = tokeniser_view(1.0, 8, 32, 32), decoder_view(1.0, 8, 64, 64)
    dataset = ClipDataset(
        ShardReader(shards), seed=0, seconds=1.0, tokeniser_view=views[0], decoder_view=views[1], training=False
    )
    assert not dataset.alike
    sample = dataset[2]
    assert sample.kind == "several" and sample.frame_counts == [9, 1] and sample.places == ((0, 6), (1, 14))
    assert sample.question == "Hello ?" and sample.turns == (("Like this one:", "No."),)
    assert [tuple(own.shape) for own in (sample.frames, *sample.others)] == [(9, 3, 32, 32), (1, 3, 32, 32)]
    assert sample.video.shape == (1, 3, 32, 32) and not sample.video.any()
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    assert torch.equal(sample.others[0][0], red.expand(3, 32, 32))


def test_parquet_may_hold_the_media_themselves(folder, tmp_path):
    images = [{"bytes": (folder / name).read_bytes(), "path": name} for name in ("a.png", "b.png")]
    rows = [TYPED | {"images": images}, TYPED | {"images": [images[0], {"bytes": None, "path": None}]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "captions.parquet")
    source = discover(tmp_path / "captions.parquet")
    clip = source[0].load()
    assert [clip.video, *(body for body, _ in clip.others)] == [image["bytes"] for image in images]
    with pytest.raises(BadVideo, match="bad_row"):
        source[1].load()
