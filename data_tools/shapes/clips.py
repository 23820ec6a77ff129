"""A folder of rendered clips: what a build packs, and the questions that an evaluation asks."""

import csv
from pathlib import Path

from data_tools.draws import Draws
from data_tools.encode import encode_mp4
from data_tools.errors import DataError
from data_tools.items import Item, write_items
from data_tools.shapes.drawing import render
from data_tools.shapes.scene import SPLITS, draw_scene, scene_of
from data_tools.shapes.words import CATEGORIES, TV_ALIGN, caption_of, item_of

CRF = 18


def render_clips(
    folder: str | Path, clips: int, seed: int, frames: int = 24, fps: int = 8, size: int = 64, split: str = "all"
) -> None:
    """Write `clips` clips, their questions as items.jsonl, whose ids are the clips' names without the ending, and then
    captions.csv (path, caption, question, answer): an input for a build.

    In the table three of four clips have a question, open, not multiple-choice; the others are there to be captioned.
    """
    folder = Path(folder)
    if clips < 1:
        raise DataError(f"the number of clips must be at least 1, not {clips}")
    if split not in SPLITS:
        raise DataError(f"the split must be one of {', '.join(SPLITS)}, not {split!r}")
    if (folder / "captions.csv").exists():
        raise DataError(f"{folder} already holds clips: choose another folder or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    rows, items = [], []
    for number in range(clips):
        draws = Draws(seed, number)
        scene = draw_scene(draws, split)
        item = item_of(scene, draws, f"{number:03d}")
        (folder / f"{item.id}.mp4").write_bytes(encode_mp4(render(scene, frames, size), fps, CRF))
        items.append(item)
        asked = (item.question, item.answer) if number % 4 else ("", "")
        rows.append((f"{item.id}.mp4", caption_of(scene, draws), *asked))
    write_items(items, folder / "items.jsonl")
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "caption", "question", "answer"))
        table.writerows(rows)


def scene_items(per_category: int, seed: int, split: str = "test") -> list[Item]:
    """Questions about scenes of TV-Align's seven categories, with each category's labels in turn."""
    if per_category < 1:
        raise DataError(f"the number of items must be at least 1, not {per_category}")
    items = []
    for category in TV_ALIGN:
        labels = tuple(CATEGORIES[category].answers)
        for number in range(per_category):
            draws = Draws(seed, number)
            scene = scene_of(category, labels[number % len(labels)], draws, split)
            items.append(item_of(scene, draws, f"{category}-{number:03d}"))
    return items
