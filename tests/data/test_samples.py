"""What the members of a sample are read as, and what is no captioned clip."""

import json

import pytest

from data_tools.errors import BadVideo
from data_tools.shards import RawSample
from data_tools.shards.samples import from_members, to_members


def read(members):
    return from_members(
        "k", {name: body if isinstance(body, bytes) else body.encode() for name, body in members.items()}
    )


def test_ours_come_back_as_they_went():
    meta = {"caption": "A ball.", "path": "a.mp4", "facts": {"frames": 3}, "captions": ["A.", "B."]}
    for extension in (".mp4", ".video", ".xyz"):
        sample = RawSample("k", b"film", extension, meta)
        assert from_members("k", to_members(sample)) == sample
    sample = RawSample("k", b"film", ".mp4", meta, {"latents.safetensors": b"1", "jpg": b"2"})
    assert from_members("k", to_members(sample)) == sample


@pytest.mark.parametrize(
    "members",
    [
        {"txt": "A dog.\n", "mp4": "film"},
        {"caption": "A dog.", "mp4": "film"},
        {"mp4": "film", "json": '{"caption": "A dog."}'},
        {"mp4": "film", "json": '{"text": "A dog.", "caption": null}'},
        {"mp4": "film", "json": '{"caption": ["A dog."]}'},
        {"mp4": "film", "txt": b"\xef\xbb\xbfA dog."},
        {"mp4": "film", "txt": "A dog.\r\n".encode("utf-16")},
        {"mp4": "film", "json": '{"caption": "A cat."}', "txt": "A dog."},
        {"mp4": "film", "json": '{"caption": "A dog."}', "txt": " \n"},
        {"jpg": "thumb", "mp4": "film", "txt": "A dog.", "cls": "3"},
        {"v2.mp4": "film", "v2.txt": "A dog.", "txt": "A cat.", "x.txt": "A cow."},
        {"mp4": "film", "v2.mp4": "another", "txt": "A dog."},
    ],
)
def test_captions_and_clips_are_found_where_others_put_them(members):
    sample = read(members)
    assert (sample.video, sample.extension, sample.meta["caption"]) == (b"film", ".mp4", "A dog.")


def test_what_is_not_used_is_kept():
    sample = read({"mp4": "film", "txt": "A.", "caption": "B.", "cls": "3", "json": '{"id": 7}'})
    assert sample.extras == {"caption": b"B.", "cls": b"3"}
    assert sample.meta == {"id": 7, "caption": "A.", "path": "k.mp4"}


@pytest.mark.parametrize(
    "reason, members",
    [
        ("no_video", {"txt": "A.", "json": "{}"}),
        ("several_videos", {"mp4": "film", "mov": "film", "txt": "A."}),
        ("several_videos", {"b.mp4": "film", "b.txt": "A.", "c.mp4": "film", "c.txt": "B."}),
        ("several_videos", {"jpg": "one", "png": "two", "txt": "A."}),
        ("no_caption", {"mp4": "film"}),
        ("no_caption", {"mp4": "film", "json": '{"caption": []}'}),
        ("no_caption", {"mp4": "film", "json": '{"question": "Who?"}'}),
        ("bad_caption", {"mp4": "film", "json": '{"caption": {"en": "A."}}'}),
        ("bad_text", {"mp4": "film", "txt": "é".encode("latin-1")}),
        ("bad_meta", {"mp4": "film", "txt": "A.", "json": "{"}),
        ("bad_meta", {"mp4": "film", "txt": "A.", "json": "[1]"}),
        ("bad_meta", {"mp4": "film", "txt": "A.", "json": b"\xff"}),
        ("bad_meta", {"mp4": "film", "txt": "A.", "json": '{"facts": 1}'}),
        ("bad_meta", {"mp4": "film", "txt": "A.", "json": '{"path": 7}'}),
        ("bad_meta", {"mp4": "film", "txt": "A.", "json": "[" * 10**5}),
        ("bad_question", {"mp4": "film", "txt": "A.", "json": '{"question": ["Who?"], "answer": "I."}'}),
        ("bad_conversations", {"mp4": "film", "txt": "A.", "json": '{"conversations": {"from": "human"}}'}),
        ("bad_captions", {"mp4": "film", "txt": "A.", "json": '{"captions": "A."}'}),
        ("bad_captions", {"mp4": "film", "txt": "A.", "json": json.dumps({"captions": [1]})}),
    ],
)
def test_what_is_no_captioned_clip_has_a_reason(reason, members):
    with pytest.raises(BadVideo) as caught:
        read(members)
    assert caught.value.reason == reason
