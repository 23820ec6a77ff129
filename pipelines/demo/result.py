"""Shows the result of the demo: captions of held-out clips, and videos of prompts with what the pixel judge sees."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from data_tools.items import Item
from data_tools.shapes import caption_is_right
from data_tools.shapes.judge import answer
from data_tools.video.media import encode_gif
from pipelines.config import RunConfig
from pipelines.demo.picture import Panel, animation, contact_sheet
from pipelines.engine.demo_clips import HELD_OUT, held_out_scene, prompts_of
from pipelines.inference.generate import Wanted, generate_videos
from pipelines.inference.load import load_run
from pipelines.inference.understand import Understanding
from vtok.framework import VTokFramework
from vtok.sampling import Sampling

DESCRIBE = "Describe this video."
SHEET, GIF = "demo.png", "demo.gif"


@dataclass
class Caption:
    """A held-out clip and its captions.

    Attributes:
        frames: The clip, (F, 3, H, W) ``uint8``.
        said: What the model says.
        true: The clip's own caption.
        right: Whether the model's caption tells number, colours, shapes and what happens.
    """

    frames: Tensor
    said: str
    true: str
    right: bool


@dataclass
class Video:
    """A video that the model made.

    Attributes:
        frames: The video, (F, 3, H, W) ``uint8``.
        item: Its prompt, and the question about it.
        answer: What the pixel judge sees; ``None`` if the pixels do not tell.
    """

    frames: Tensor
    item: Item
    answer: str | None

    @property
    def right(self) -> bool:
        return self.answer == self.item.answer


def show(config: RunConfig, output: Path) -> None:
    """Captions held-out clips, makes videos, draws both, and prints the result."""
    config, framework, step = load_run(output)
    captions = caption_clips(config, framework, output / "data" / HELD_OUT)
    videos = make_videos(config, framework, output)
    panels = [Panel(one.frames, f"says: {one.said}", mark(one.right)) for one in captions]
    panels += [Panel(one.frames, f"asked: {one.item.prompt}", mark(one.right)) for one in videos]
    contact_sheet(panels).save(output / SHEET)
    frames, fps = animation(panels, config.model.decoder.fps)
    (output / GIF).write_bytes(encode_gif(frames, fps))
    print("\n".join(report(captions, videos, config, framework, step)))
    print(
        f"\n  picture   {output / SHEET}, moving in {output / GIF}; each video in {output}/prompt-N.mp4\n"
        f"  curves    tensorboard --logdir {output / 'tensorboard'}",
        flush=True,
    )


def caption_clips(config: RunConfig, framework: VTokFramework, clips: Path) -> list[Caption]:
    """Captions the held-out clips that the demo shows."""
    understanding, captions = Understanding(config, framework), []
    scenes = [held_out_scene(config.seed, number) for number in range(config.demo.held_out)]
    for category in config.demo.captions:
        number = next(number for number, (scene, _) in enumerate(scenes) if scene.category == category)
        scene, true = scenes[number]
        path = clips / f"{number:03d}.mp4"
        said = understanding.answer(path, DESCRIBE)
        captions.append(Caption(understanding.seen(path)[0].cpu(), said, true, caption_is_right(said, scene)))
    return captions


def make_videos(config: RunConfig, framework: VTokFramework, output: Path) -> list[Video]:
    """Makes the videos of the demo's prompts and has the pixel judge look at them."""
    items = prompts_of(config.demo, config.seed)
    wanted = [Wanted(output / f"{item.id}.mp4", item.prompt, config.seed) for item in items]
    demo, sampling = config.demo, Sampling(best_of=config.demo.best_of)
    made = generate_videos(config, framework, wanted, demo.seconds, steps=demo.steps, sampling=sampling)
    return [Video(frames, item, answer(frames.permute(0, 2, 3, 1).numpy(), item)) for frames, item in zip(made, items)]


def report(
    captions: list[Caption], videos: list[Video], config: RunConfig, framework: VTokFramework, step: int
) -> list[str]:
    """Returns the lines that the demo prints at last."""
    lines = [f"\nAfter {step} further steps of training. Captions of {len(captions)} clips that it has never seen:"]
    for one in captions:
        lines += [f"  {mark(one.right)} it says  {one.said}", f"    true     {one.true}"]
    kept = "" if config.demo.best_of == 1 else f", of each the best of {config.demo.best_of} in the model's own eyes"
    lines.append(f"Videos of {len(videos)} prompts{kept}, and what a judge of pixels answers about them:")
    for made in videos:
        question, answer = made.item.question, made.answer or "cannot tell"
        lines += [f"  {mark(made.right)} asked    {made.item.prompt}", f"    judge    {question} {answer}"]
    frames = round(config.data.seconds * config.model.tokeniser.fps) + 1
    key, motion = framework.tokeniser.counts(frames)
    lines.append(
        f"Tokens of a clip of {config.data.seconds:g} s: {key} of the key frame + {motion} of motion = {key + motion}. "
        f"Its {frames - 1} frames as pictures would be {key * (frames - 1)}."
    )
    return lines


def mark(right: bool) -> str:
    """Returns the sign of a right or a wrong answer."""
    return "✓" if right else "✗"
