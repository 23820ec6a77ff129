"""The fields of a clip's rows → its meta, the fields that training reads.

caption                  one caption; "" for a clip that has questions only: it carries no loss of generation
captions                 several captions, if there are: training draws one
question, answer         one question-answer pair, if there is; one of them alone is an ordinary field
conversations            all pairs [question, answer], if there are several: training draws one

`describe` of a meta gives the same meta: a tar of ours is read by the rules for tars of other tools.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from data_tools.errors import BadVideo
from data_tools.texts.reading import filled
from data_tools.texts.turns import Pair, brief, from_json, pairs_of, text_of

T = TypeVar("T")

RESERVED_FIELDS = ("facts",)
CONVERSATIONS = ("conversations", "messages")
PAIR = ("question", "answer")
TEXT_FIELDS = frozenset({"caption", "captions", *PAIR, *CONVERSATIONS})
LISTS = ("videos", "images")  # beside the messages of Hugging Face's tables
# Fields of the path where others have no field "path": LLaVA-Video's, LLaVA's, ShareGPT4Video's and the lists.
OTHER_VIDEOS = ("video", "image", "video_path", *LISTS)
NAMES_MEDIA = ("<image>", "<video>", '"type": "image', '"type": "video')  # in a conversation, as JSON
WHOLE = "-1"  # number of the caption of the whole video, among those of its parts (ShareGPT4Video)
SECOND_CAPTION = "text"  # field of the caption where others have no field "caption"


@dataclass(frozen=True)
class Columns:
    """Names of the fields to read: columns of a table, or fields of a .json.

    Attributes:
        video: the field with the path of the video or image. Where there is no "path", one of `OTHER_VIDEOS`.
        caption: the field with the caption. "text" is read instead where there is no "caption".
        source: the field that identifies the recording of a clip. Clips of one recording go to the same side of a
            split. None: the video itself.
    """

    video: str = "path"
    caption: str = "caption"
    source: str | None = None

    @property
    def videos(self) -> tuple[str, ...]:
        """The fields that may have the path. The first one that a row has counts."""
        return (self.video, *OTHER_VIDEOS) if self.video == "path" else (self.video,)

    @property
    def texts(self) -> frozenset[str]:
        """The fields of which a clip needs one."""
        second = {SECOND_CAPTION} if self.caption == "caption" else set()
        return frozenset({self.caption, "captions", "question", *CONVERSATIONS, *second})


def describe(name: str, rows: Sequence[dict], columns: Columns = Columns()) -> dict:
    """The meta of a clip: the texts of all its rows, and the other fields of the first row.

    Args:
        name: stored as "path".
        rows: the clip's rows, as field → value.
        columns: names of the fields.

    Raises:
        BadVideo: a text is missing or invalid.
    """
    rows = [filled(row) for row in rows]
    captions = _unique(text for row in rows for text in _captions(_caption_cell(row, columns), "bad_caption"))
    wordings = _unique(text for row in rows for text in _captions(from_json(row.get("captions", [])), "bad_captions"))
    pairs = _unique(pair for row in rows for pair in _pairs(row))
    if not (captions or wordings or pairs):
        raise BadVideo("no_caption", "there is no caption, or it is empty, and there is no question")
    known = {
        video_field(rows[0], columns),
        columns.video,
        columns.caption,
        "path",
        *TEXT_FIELDS.difference(PAIR),
        *RESERVED_FIELDS,
        *(LISTS if columns.video == "path" else ()),
    }
    if not any(columns.caption in row for row in rows):
        known.add(SECOND_CAPTION)  # it is the caption, or a later reader would take it for one
    meta = {field: value for field, value in rows[0].items() if field not in known}
    meta |= {"path": name, "caption": (captions or wordings or [""])[0]}
    if wordings or len(captions) > 1:
        meta["captions"] = wordings or captions
    if pairs:
        meta |= dict(zip(PAIR, pairs[0]))
    if len(pairs) > 1 or any(field in row for row in rows for field in CONVERSATIONS):
        meta["conversations"] = [list(pair) for pair in pairs]
    return meta


def video_field(row: dict, columns: Columns) -> str:
    """The field with the path of a row's video or image; the usual one if there is none."""
    return next((name for name in columns.videos if row.get(name)), columns.video)


def is_conversation_alone(fields: dict) -> bool:
    """Whether fields without a video are a text: a conversation that names no video and no image."""
    told = [from_json(fields[name]) for name in CONVERSATIONS if name in fields]
    if not told or any(fields.get(name) for name in OTHER_VIDEOS):
        return False
    text = json.dumps(told, ensure_ascii=False, default=str)
    return not any(name in text for name in NAMES_MEDIA)


def _caption_cell(row: dict, columns: Columns) -> Any:
    """The value of the field with the caption; [] if there is none."""
    if columns.caption in row or SECOND_CAPTION not in columns.texts:
        return row.get(columns.caption, [])
    return row.get(SECOND_CAPTION, [])


def _captions(value: Any, reason: str) -> list[str]:
    """The captions in a field: a list of strings, or a string in the field "caption". Raises BadVideo."""
    if isinstance(value, str | bytes) and reason == "bad_caption":
        value = [value]
    if not isinstance(value, list):
        wanted = "a text or a list of texts" if reason == "bad_caption" else "a list of texts, in a table as JSON"
        raise BadVideo(reason, f"{reason.removeprefix('bad_')!r} is not {wanted}, but {brief(value)}")
    if value and all(isinstance(item, dict) and "content" in item for item in value):
        whole = [item for item in value if str(item.get("idx")) == WHOLE]
        value = [item["content"] for item in whole or value]
    return [text for item in value if item is not None and (text := text_of(item, reason, numbers=False))]


def _pairs(row: dict) -> list[Pair]:
    """The (question, answer) pairs of a row. Raises BadVideo."""
    asked = [text_of(row[field], "bad_question") for field in PAIR if field in row]
    pairs = [(asked[0], asked[1])] if len(asked) == len(PAIR) else []
    return pairs + [pair for field in CONVERSATIONS if field in row for pair in pairs_of(row[field], field)]


def _unique(values: Iterable[T]) -> list[T]:
    """The values in order, each once."""
    return list(dict.fromkeys(values))
