"""Texts are read by one set of rules, whatever they come in."""

import json
from decimal import Decimal

import pytest

from data_tools.errors import BadVideo
from data_tools.texts import Columns, decoded, describe, json_object, plain

HUMAN, GPT = {"from": "human", "value": "<video>\nWhat moves?"}, {"from": "gpt", "value": "An <image> of a ball."}
PAIR = ["What moves?", "An <image> of a ball."]


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [HUMAN, GPT]},
        {"conversations": json.dumps([{"from": "system", "value": "Be brief."}, HUMAN, GPT])},
        {"conversations": {"from": ["human", "gpt"], "value": [HUMAN["value"], GPT["value"]]}},
        {"conversations": [PAIR]},
        {"messages": [{"role": "user", "content": "<video>What moves?"}, {"role": "assistant", "content": PAIR[1]}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What moves?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": PAIR[1]}]},
            ]
        },
    ],
)
def test_every_form_of_a_conversation_gives_the_same_pairs(row):
    meta = describe("a.mp4", [row])
    assert meta == {"path": "a.mp4", "caption": "", "question": PAIR[0], "answer": PAIR[1], "conversations": [PAIR]}
    assert describe("a.mp4", [meta]) == meta


@pytest.mark.parametrize(
    "value", [[], [HUMAN], [GPT, HUMAN], [1], "hello", 7, [HUMAN, GPT | {"value": None}], {}, [["", "B."]]]
)
def test_what_is_no_conversation_has_a_reason(value):
    with pytest.raises(BadVideo) as caught:
        describe("a.mp4", [{"caption": "A.", "conversations": value}])
    assert caught.value.reason == "bad_conversations"


@pytest.mark.parametrize("number, text", [(3, "3"), (3.0, "3"), (0.5, "0.5"), (Decimal("1.50"), "1.50")])
def test_numbers_are_answers(number, text):
    meta = describe("a.mp4", [{"question": "How many?", "answer": number}])
    assert (meta["answer"], meta["caption"]) == (text, "")
    for bad in (["x"], True, float("inf")):
        with pytest.raises(BadVideo, match="bad_question"):
            describe("a.mp4", [{"caption": "A.", "question": "Which?", "answer": bad}])


def test_a_question_without_an_answer_is_an_ordinary_field():
    assert describe("a.mp4", [{"caption": "A.", "question": "Who?"}])["question"] == "Who?"
    with pytest.raises(BadVideo, match="no_caption"):
        describe("a.mp4", [{"question": "Who?"}])


def test_the_caption_may_be_called_text_if_no_other_name_is_asked_for():
    assert describe("a", [{"text": "A."}]) == {"path": "a", "caption": "A."}
    assert describe("a", [{"text": "T.", "caption": "A."}]) == {"path": "a", "caption": "A.", "text": "T."}
    with pytest.raises(BadVideo, match="no_caption"):
        describe("a", [{"text": "A."}], Columns(caption="summary"))
    asked = describe("a", [{"text": "T.", "question": "Q?", "answer": "R."}], Columns(caption="summary"))
    assert describe("a", [asked]) == asked and asked["caption"] == ""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_the_text(encoding):
    assert decoded("Ein Hund läuft.\r\n".encode(encoding), "a.txt") == "Ein Hund läuft."
    assert json_object('{"caption": "水"}'.encode(encoding), "a.json") == {"caption": "水"}


def test_other_encodings_are_named_with_the_line():
    with pytest.raises(BadVideo, match=r"a\.txt, line 2: byte 0xe4 is not UTF-8"):
        decoded("Ein Hund\nläuft.".encode("cp1252"), "a.txt")
    with pytest.raises(BadVideo, match="a.txt holds zero bytes, as UTF-16 without a mark"):
        decoded("A dog.".encode("utf-16-le"), "a.txt")


def test_what_json_does_not_know_becomes_null():
    assert json_object(b'{"a": NaN, "b": [-Infinity, 1]}', "a.json") == {"a": None, "b": [None, 1]}
    assert plain({"a": {"b": float("nan")}, "c": 1e999}) == {"a": {"b": None}, "c": None}
