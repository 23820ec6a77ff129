"""The demo's data: clips of moving shapes, rendered and packed into shards before its training."""

from dataclasses import replace
from pathlib import Path

from data_tools.draws import Draws
from data_tools.items import Item
from data_tools.packing import build_shards
from data_tools.shapes import CATEGORIES, Scene, caption_of, draw_scene, item_of, render_clips, scene_of
from pipelines.config import DemoConfig

SPLIT = "train"  # the shipped models know these combinations of colour, shape and motion
CLIPS, HELD_OUT, TABLE = "clips", "held_out", "captions.csv"


def pack_demo_clips(demo: DemoConfig, seed: int, output: Path) -> Path:
    """Renders training and held-out clips and packs both into shards, once per output.

    The layout is that of ``vtok-shards build --val-share``.

    Args:
        demo: Numbers of clips.
        seed: Seed of the training clips. The held-out clips use the next one.
        output: Folder of the run.

    Returns:
        The folder of the training shards. The held-out shards are beside it.
    """
    data = output / "data"
    train, val = data / "shards" / "train", data / "shards" / "val"
    if not (val / "manifest.json").exists():
        print(f"rendering {demo.clips} clips of moving shapes and packing them into {train}", flush=True)
        for folder, clips, own in ((data / CLIPS, demo.clips, seed), (data / HELD_OUT, demo.held_out, seed + 1)):
            if not (folder / TABLE).exists():  # a killed start has rendered them, and may have packed some
                render_clips(folder, clips, own, split=SPLIT)
        build_shards(data / CLIPS, train, progress=False)
        build_shards(data / HELD_OUT, val, progress=False)
    return train


def held_out_scene(seed: int, number: int) -> tuple[Scene, str]:
    """Returns what a held-out clip shows, and its caption.

    Args:
        seed: Seed of the demo.
        number: Number of the clip.
    """
    draws = Draws(seed + 1, number)
    scene = draw_scene(draws, SPLIT)
    return scene, caption_of(scene, draws)


def prompts_of(demo: DemoConfig, seed: int) -> list[Item]:
    """Draws the prompts of the videos: detailed captions of new scenes, each with a question for the pixel judge.

    Args:
        demo: The categories of the scenes.
        seed: Seed of the demo. The prompts use the one after the held-out clips'.
    """
    items = []
    for number, category in enumerate(demo.prompts):
        draws = Draws(seed + 2, number)
        labels = list(CATEGORIES[category].answers)
        scene = scene_of(category, labels[draws.integer("label", len(labels))], draws, SPLIT)
        item = item_of(scene, draws, f"prompt-{number}")
        items.append(replace(item, prompt=caption_of(scene, draws, detailed=True)))
    return items
