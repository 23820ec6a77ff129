"""Write folders of rendered clips for a build, and questions for an evaluation."""

import csv
from collections.abc import Sequence
from pathlib import Path

from data_tools.draws import Draws
from data_tools.errors import DataError
from data_tools.items import Item, write_items
from data_tools.shapes.drawing import render
from data_tools.shapes.scene import SPLITS, draw_scene, scene_of
from data_tools.shapes.vocabulary import CATEGORIES, TV_ALIGN
from data_tools.shapes.words import caption_of, item_of
from data_tools.video.encode import encode_mp4

CRF = 18  # of x264
TRIES = 1000  # draws of a scene whose prompt is new


def render_clips(
    folder: str | Path,
    clips: int,
    seed: int,
    frames: int = 24,
    fps: int = 8,
    size: int = 64,
    split: str = "all",
    categories: Sequence[str] = tuple(CATEGORIES),
) -> None:
    """Write clips, items.jsonl and captions.csv to a folder that `vtok-shards build` can read.

    items.jsonl holds one multiple-choice question per clip; its id is the clip's file name without the ending.
    captions.csv has the columns path, caption, question and answer. Three of four rows have an open question;
    the others have a caption only.

    Args:
        folder: created if missing; must not hold a captions.csv.
        clips: number of clips.
        seed: seed of all draws.
        frames: frames per clip.
        fps: frames per second.
        size: height and width in pixels.
        split: one of `SPLITS` (see `scene.scene_of`).
        categories: those of the clips, among `CATEGORIES`. One that is named twice comes twice as often.

    Raises:
        DataError: an argument is out of range, or the folder already holds clips.
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
        scene = draw_scene(draws, split, categories)
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
    """Questions about scenes of the seven TV-Align categories; each category cycles through its labels.

    No prompt is repeated. Where a draw repeats one, the scene is drawn again.

    Raises:
        DataError: `per_category` is below 1, or above the number of different prompts.
    """
    if per_category < 1:
        raise DataError(f"the number of items must be at least 1, not {per_category}")
    items: list[Item] = []
    prompts: set[str] = set()
    for category in TV_ALIGN:
        labels = tuple(CATEGORIES[category].answers)
        for number in range(per_category):
            label, id = labels[number % len(labels)], f"{category}-{number:03d}"
            for attempt in range(TRIES):
                draws = Draws(seed, number + attempt * per_category)
                item = item_of(scene_of(category, label, draws, split), draws, id)
                if item.prompt not in prompts:
                    break
            else:
                raise DataError(f"the category {category} has fewer than {per_category} different prompts in {split!r}")
            prompts.add(item.prompt)
            items.append(item)
    return items
