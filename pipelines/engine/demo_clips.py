"""The demo's data: clips of moving shapes, rendered and packed into shards before its training."""

from pathlib import Path

from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from pipelines.config import DemoConfig


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
        print(f"rendering {demo.clips} clips of moving shapes and packing them into {train}")
        render_clips(data / "clips", demo.clips, seed)
        render_clips(data / "held_out", demo.held_out, seed + 1)
        build_shards(data / "clips", train, progress=False)
        build_shards(data / "held_out", val, progress=False)
    return train
