"""Renders the splits: ``train`` (also as shards), ``dev`` to choose settings, ``test`` with held-out combinations."""

from pathlib import Path
from typing import Any

from data_tools.draws import Draws
from data_tools.packing import build_shards
from data_tools.shapes import Scene, draw_scene, render_clips
from pipelines.shapes_study.config import RenderConfig

# Each split's combinations of colour, shape and motion, and an offset that keeps the seeds of the splits apart.
SPLITS = {"train": ("train", 1_000_000), "dev": ("train", 2_000_000), "test": ("test", 3_000_000)}


def make(folder: Path, config: RenderConfig, seed: int) -> dict[str, Any]:
    """Renders all splits.

    Writes ``folder/train``, ``folder/dev`` and ``folder/test``, each with ID.mp4 and items.jsonl, and ``folder/shards``
    with the training clips.

    Args:
        folder: Folder of the stage.
        config: The settings.
        seed: The study's seed.

    Returns:
        ``clips``: the number of training clips.
    """
    for name, (split, offset) in SPLITS.items():
        clips = folder / name
        if not (clips / "captions.csv").exists():
            render_clips(
                clips, getattr(config, name), seed + offset, config.frames, config.fps, config.size, split=split
            )
    summary = build_shards(folder / "train", folder / "shards", progress=False)
    return {"clips": summary.packed}


def scene_of_clip(split: str, name: str, seed: int) -> tuple[Scene, Draws]:
    """Returns the scene of a clip, and its draws.

    Args:
        split: Its split.
        name: Its file name.
        seed: The study's seed.
    """
    shown, offset = SPLITS[split]
    draws = Draws(seed + offset, int(Path(name).stem))
    return draw_scene(draws, shown), draws
