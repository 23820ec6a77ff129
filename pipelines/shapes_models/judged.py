"""Judges the decoder's videos of new scenes, generated from text alone, with the pixel judge.

The scenes come from the training distribution. The judge also sees the true clips and their reconstructions, which are
the upper bounds for any decoder.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from data_tools.draws import Draws
from data_tools.items import Item
from data_tools.shapes import CATEGORIES, TV_ALIGN, Scene, caption_of, item_of, scene_of
from pipelines.config import RunConfig, TrainConfig
from pipelines.evaluation.judges.pixels import PixelJudge
from pipelines.evaluation.tables import Line, categories_of, line_of
from pipelines.evaluation.tv_align.protocol import viewings
from pipelines.evaluation.tv_align.run import Generation, generated_videos, judge_videos
from pipelines.inference.load import Run
from pipelines.shapes_models.clips import SPLIT, frames_of
from pipelines.shapes_models.config import ModelsConfig
from vtok.framework import VTokFramework
from vtok.video_decoder import decode_video, encode_video

OFFSET = 909_089  # keeps the scenes' seed apart from those that any model was trained on
TRUE, RECONSTRUCTED = "true clips", "reconstructions"
VIDEOS_AT_ONCE = 20  # one video is so small that calling the transformer takes longer than running it
SHORT, DETAILED = "short", "detailed"  # prompts


def make(folder: Path, config: ModelsConfig, framework: VTokFramework) -> dict[str, Any]:
    """Generates videos of short and of detailed captions and has them judged.

    Args:
        folder: Folder of the stage; keeps videos and answers.
        config: The settings.
        framework: A framework with the decoder and without visual tokens.

    Returns:
        ``short`` and ``detailed``, lines of the videos of these captions; and ``ceilings``: lines of true clips and of
        reconstructions.
    """
    scenes = new_scenes(config.later_seed, config.videos)
    items = [item for _, item in scenes]
    lines = judged_prompts(folder, scenes, config, framework)
    true = [frames_of(scene, config) for scene, _ in scenes]
    vae = framework.decoder.vae
    shown = {TRUE: true, RECONSTRUCTED: [decode_video(vae, encode_video(vae, own[None]).mean)[0] for own in true]}
    return lines | {"ceilings": {name: plain(judged(items, clips)) for name, clips in shown.items()}}


def judged_prompts(
    folder: Path, scenes: list[tuple[Scene, Item]], config: ModelsConfig, framework: VTokFramework
) -> dict[str, Any]:
    """Has videos judged: ``short``, of the items' own prompts, and ``detailed``, of detailed captions of the scenes.

    Args:
        folder: Keeps videos and answers.
        scenes: Scenes and their items.
        config: The settings.
        framework: Makes the videos.
    """
    prompts = {SHORT: [item for _, item in scenes], DETAILED: [in_detail(*pair) for pair in scenes]}
    return {name: plain(judged_videos(folder / name, items, config, framework)) for name, items in prompts.items()}


def in_detail(scene: Scene, item: Item) -> Item:
    """Returns a scene's item with a detailed caption as its prompt."""
    draws = Draws(OFFSET, int(item.id.rpartition("-")[2]))
    return replace(item, prompt=caption_of(scene, draws, detailed=True))


def judged_videos(folder: Path, items: list[Item], config: ModelsConfig, framework: VTokFramework) -> list[Line]:
    """Generates a video for each item in ``folder/videos`` and has the pixel judge answer its question.

    Returns:
        A line per category, and one for all.
    """
    viewed = viewings(items, 0, config.later_seed)
    how = Generation(config.seconds, config.latents.fps, config.denoising_steps, seed=config.later_seed)
    videos = generated_videos(how, viewed, folder / "videos", untrained(framework), VIDEOS_AT_ONCE)
    return judge_videos(items, viewed, PixelJudge(), videos, {}, folder)


def untrained(framework: VTokFramework) -> Callable[[], Run]:
    """Returns a loader of a run at step 0, with this framework."""
    return lambda: (RunConfig(TrainConfig(max_steps=1), model=framework.config), framework, 0)


def plain(lines: list[Line]) -> list[dict[str, Any]]:
    """Returns the lines as dictionaries."""
    return [asdict(line) for line in lines]


def new_scenes(seed: int, per_category: int) -> list[tuple[Scene, Item]]:
    """Draws scenes of each of TV-Align's categories, with the category's labels in turn."""
    scenes = []
    for category in TV_ALIGN:
        labels = tuple(CATEGORIES[category].answers)
        for number in range(per_category):
            draws = Draws(seed + OFFSET, number)
            scene = scene_of(category, labels[number % len(labels)], draws, SPLIT)
            scenes.append((scene, item_of(scene, draws, f"{category}-{number:03d}")))
    return scenes


def judged(items: list[Item], clips: list[Tensor]) -> list[Line]:
    """Judges clips, each (F, 3, H, W) ``uint8``; returns a line per category and one for all."""
    judge = PixelJudge()
    said = {
        item.id: judge.answer(frames.permute(0, 2, 3, 1).numpy(), list(range(len(frames))), item)
        for item, frames in zip(items, clips)
    }
    return [line_of(name, group, said, {}) for name, group in categories_of(items)]
