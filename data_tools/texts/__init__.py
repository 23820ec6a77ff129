"""The texts of a clip: one reader of captions, questions and conversations for every kind of input.

`build` (folders and tables), `index` (tars of other tools) and training read texts by the same rules.

reading.py    bytes → text or JSON; says what is no UTF-8, and where
turns.py      conversations in LLaVA's form, chat messages → (question, answer) pairs
describe.py   the fields of a clip's rows → the fields that training reads
media.py      the same of a conversation about several videos and images, and where each stands
"""

from data_tools.texts.describe import (
    RESERVED_FIELDS,
    TEXT_FIELDS,
    Columns,
    describe,
    is_conversation_alone,
    video_field,
)
from data_tools.texts.media import MediaCell, describe_several, media_cells
from data_tools.texts.reading import decoded, filled, json_object, json_value, plain, text_lines

__all__ = [
    "RESERVED_FIELDS",
    "TEXT_FIELDS",
    "Columns",
    "MediaCell",
    "decoded",
    "describe",
    "describe_several",
    "filled",
    "is_conversation_alone",
    "json_object",
    "json_value",
    "media_cells",
    "plain",
    "text_lines",
    "video_field",
]
