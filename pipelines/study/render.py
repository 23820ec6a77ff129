"""Clips to train on, packed into shards; clips to choose settings by; clips to test on, of held-out combinations."""

from pathlib import Path
from typing import Any

from data_tools.build import build_shards
from data_tools.draws import Draws
from data_tools.shapes import Scene, draw_scene, render_clips
from pipelines.study.config import RenderConfig

# Seeds of the splits, apart from each other whatever the study's own.
SPLITS = {"train": ("train", 1_000_000), "dev": ("train", 2_000_000), "test": ("test", 3_000_000)}


def make(folder: Path, config: RenderConfig, seed: int) -> dict[str, Any]:
    """``folder/shards`` to train on, ``folder/dev`` and ``folder/test``, each ID.mp4 with items.jsonl."""
    for name, (split, offset) in SPLITS.items():
        clips = folder / name
        if not (clips / "captions.csv").exists():
            render_clips(
                clips, getattr(config, name), seed + offset, config.frames, config.fps, config.size, split=split
            )
    summary = build_shards(folder / "train", folder / "shards", progress=False)
    return {"clips": summary.packed}


def scene_of_clip(split: str, name: str, seed: int) -> Scene:
    """What a clip of one of the splits shows; ``name`` is its file's."""
    shown, offset = SPLITS[split]
    return draw_scene(Draws(seed + offset, int(Path(name).stem)), shown)
