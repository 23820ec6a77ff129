"""A row about several videos and images: which they are, and where each stands in the conversation.

{"image": ["a.jpg", "b.jpg"], "conversations": [{"from": "human", "value": "<image><image>\\nCompare."}, …]}    LLaVA
{"videos": ["a.mp4"], "images": ["b.jpg"], "messages": [{"role": "user", "content": "<video> or <image>?"}, …]} messages
{"messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}, {"type": "text", …}]}, …]}      Qwen

The n-th placeholder stands for the n-th medium; where a row has both `videos` and `images`, for the n-th of its kind.
Without any placeholder all media stand before the first question.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from data_tools.errors import BadVideo
from data_tools.texts.describe import CONVERSATIONS, LISTS, PAIR, Columns, describe, video_field
from data_tools.texts.turns import MEDIA, Pair, Shown, from_json, placed, shown_in, text_of

NAMES = ("path", "url")  # of the file, in a part that does not name it by its kind


class MediaCell(NamedTuple):
    """A video or an image of a row.

    Attributes:
        kind: "video" or "image", as the row calls it.
        cell: its path, its bytes, or Hugging Face's {"bytes", "path"}.
    """

    kind: str
    cell: Any


def media_cells(row: dict, columns: Columns = Columns()) -> list[MediaCell]:
    """The videos and images that a row names, in its order; none for a text."""
    first = video_field(row, columns)
    names = [name for name in LISTS if row.get(name)] if first in LISTS and first != columns.video else [first]
    found = []
    for name in names:
        cell = row.get(name)
        kind = next((kind for kind in MEDIA if name.startswith(kind)), MEDIA[0])
        found += [MediaCell(kind, one) for one in (cell if isinstance(cell, list) else [cell]) if one]
    return found or _told_media(row)


def _told_media(row: dict) -> list[MediaCell]:
    """The videos and images that typed parts of a conversation name, in its order."""
    turns = (turn for field in CONVERSATIONS for turn in _list(from_json(row.get(field))) if isinstance(turn, dict))
    parts = (part for turn in turns for part in _list(turn.get("content", turn.get("value"))))
    named = ((part.get("type"), part) for part in parts if isinstance(part, dict))
    cells = ((kind, next((part[name] for name in (kind, *NAMES) if part.get(name)), None)) for kind, part in named)
    return [MediaCell(kind, cell) for kind, cell in cells if kind in MEDIA and isinstance(cell, str)]


def _list(value: Any) -> list:
    """A list as it is; [] for any other value."""
    return value if isinstance(value, list) else []


def describe_several(
    name: str, row: dict, kinds: Sequence[str], columns: Columns = Columns()
) -> tuple[dict, list[int]]:
    """The meta of a conversation about several media, as `describe`, with the place of each.

    It has no caption, so training makes none of the media from it.

    Args:
        name: stored as "path".
        row: the row.
        kinds: of the media, "video" or "image" each, in the order of the row.
        columns: names of the fields.

    Returns:
        The meta, whose "media" has a "turn" and the number of characters "at" for each; and their numbers in the row,
        in the order of the conversation.

    Raises:
        BadVideo: there is no conversation, or its placeholders are not as many as the media.
    """
    pairs, shown = _conversation(row)
    if not pairs:
        raise BadVideo("bad_row", f"{len(kinds)} videos or images need a conversation: give `messages`")
    order = _in_order(kinds, shown)
    places = shown or [Shown(kinds[0], 0, 0)] * len(kinds)
    meta = describe(name, [row], columns)
    meta.pop("captions", None)
    meta |= dict(zip(PAIR, pairs[0])) | {
        "caption": "",
        "conversations": [list(pair) for pair in pairs],
        "media": [{"turn": place.turn, "at": place.at} for place in places],
    }
    return meta, order


def _conversation(row: dict) -> tuple[list[Pair], list[Shown]]:
    """The pairs of a row, and what they show. Raises BadVideo."""
    for field in CONVERSATIONS:
        if field in row:
            return shown_in(row[field], field)
    if not all(field in row for field in PAIR):
        return [], []
    question, places = placed(row[PAIR[0]])
    return [(question, text_of(row[PAIR[1]], "bad_question"))], [Shown(kind, 0, at) for kind, at in places]


def _in_order(kinds: Sequence[str], shown: Sequence[Shown]) -> list[int]:
    """The number of each medium that a conversation shows, in its order. Raises BadVideo if they are not as many."""
    numbers = list(range(len(kinds)))
    if not shown:
        return numbers
    if len({*kinds}) == 1:  # LLaVA-Video writes <image> for a video
        found, fits = numbers, len(shown) == len(kinds)
    else:
        left = {kind: [number for number in numbers if kinds[number] == kind] for kind in MEDIA}
        fits = all(len(left[kind]) == sum(one.kind == kind for one in shown) for kind in MEDIA)
        found = [left[one.kind].pop(0) for one in shown] if fits else []
    if not fits:
        raise BadVideo(
            "bad_conversations", f"the questions show {len(shown)} videos and images, the row has {len(kinds)}"
        )
    return found
