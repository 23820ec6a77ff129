"""The demo: its own clips before training, a caption and a video after it."""

from pathlib import Path

from data_tools.packing import build_shards
from data_tools.packing.sources import discover
from data_tools.shapes import render_clips
from data_tools.video.media import save_contact_sheet
from pipelines.config import DemoConfig, RunConfig
from pipelines.inference.generate import Wanted, generate_videos
from pipelines.inference.load import load_run
from pipelines.inference.understand import Understanding


def prepare(demo: DemoConfig, seed: int, output: Path) -> Path:
    """Render training and held-out clips and pack both into shards, as ``--val-share`` would; done once per output."""
    data = output / "data"
    train, val = data / "shards" / "train", data / "shards" / "val"
    if not (val / "manifest.json").exists():
        print(f"rendering {demo.clips} clips of moving shapes and packing them into {train}")
        render_clips(data / "clips", demo.clips, seed)
        render_clips(data / "held_out", demo.held_out, seed + 1)
        build_shards(data / "clips", train, progress=False)
        build_shards(data / "held_out", val, progress=False)
    return train


def show(config: RunConfig, output: Path) -> None:
    """Caption a held-out clip, make a video with its contact sheet, and say where everything is."""
    config, framework, step = load_run(output)
    held_out = discover(output / "data" / "held_out")[0]
    path = held_out.path
    understanding = Understanding(config, framework)
    caption = understanding.answer(path, "Describe this video.")

    video = output / "demo.mp4"
    wanted = [Wanted(video, config.demo.prompt)]
    (frames,) = generate_videos(config, framework, wanted, config.demo.seconds, steps=config.demo.steps)
    sheet = output / "demo.png"
    save_contact_sheet(frames, sheet)
    print(
        f"\nAfter {step} steps, on models this small:\n"
        f"  held-out clip     {path}\n"
        f"  its caption       {held_out.load().meta['caption']}\n"
        f"  the model says    {caption}\n"
        f"  asked to show     {config.demo.prompt}\n"
        f"  generated video   {video}, frames side by side in {sheet}\n"
        f"                    (its decoder has random weights and was never trained: expect texture, not shapes)\n"
        f"  curves            tensorboard --logdir {output / 'tensorboard'}"
    )
