"""Multiple-choice questions about videos, as JSONL: {id, category, prompt, question, options, answer} per line."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from data_tools.draws import Draws
from data_tools.errors import DataError
from data_tools.shards import atomic_write
from data_tools.texts import text_lines


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: unique in its file.
        category: what the question is about, such as "counting".
        prompt: the text to generate the video from, or a caption of the given video.
        question: the question.
        options: at least two different texts.
        answer: one of `options`.
    """

    id: str
    category: str
    prompt: str
    question: str
    options: tuple[str, ...]
    answer: str


FIELDS = tuple(field.name for field in fields(Item))


def write_items(items: Iterable[Item], path: Path) -> None:
    """Write a JSONL file, atomically; creates its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        for item in items:
            file.write(json.dumps(asdict(item), ensure_ascii=False).encode() + b"\n")


def read_items(path: Path) -> list[Item]:
    """All items of a file, in order.

    Raises:
        DataError: the file cannot be read or is empty, or a line is not an item or repeats an id.
    """
    items: dict[str, Item] = {}
    for number, line in enumerate(text_lines(path), 1):
        try:
            item = _item(json.loads(line))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        if item.id in items:
            raise DataError(f"{path}, line {number}: the id {item.id!r} is given twice")
        items[item.id] = item
    if not items:
        raise DataError(f"{path} holds no items: write one JSON object per line with {', '.join(FIELDS)}")
    return list(items.values())


def _item(values: object) -> Item:
    if not isinstance(values, dict) or set(values) != set(FIELDS):
        raise ValueError(f"expected an object with exactly {', '.join(FIELDS)}")
    options = values["options"]
    if not isinstance(options, list) or len(options) < 2 or len({str(option) for option in options}) < len(options):
        raise ValueError("options should be a list of at least two different texts")
    for name, text in [(name, values[name]) for name in FIELDS if name != "options"] + [
        ("options", o) for o in options
    ]:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name} should be a text that is not empty")
    if values["answer"] not in options:
        raise ValueError(f"the answer {values['answer']!r} is not among the options")
    return Item(**values | {"options": tuple(options)})


def shuffled(item: Item, seed: int) -> Item:
    """The item with its options in an order that depends only on (seed, id)."""
    draws = Draws(seed, 0)
    order = sorted(item.options, key=lambda option: draws.seed(f"option/{item.id}/{option}"))
    return replace(item, options=tuple(order))
