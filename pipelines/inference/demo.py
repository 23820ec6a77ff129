"""Shows the result of the demo: a caption of a held-out clip and a video of a prompt."""

from pathlib import Path

from data_tools.packing.sources import discover
from data_tools.video.media import save_contact_sheet
from pipelines.config import RunConfig
from pipelines.inference.generate import Wanted, generate_videos
from pipelines.inference.load import load_run
from pipelines.inference.understand import Understanding


def show(config: RunConfig, output: Path) -> None:
    """Captions a held-out clip, makes a video with its contact sheet, and prints where everything is."""
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
