"""Joint training: VTok itself, from the small models, by the commands that a user runs.

Encoder and decoder are frozen, as in the paper. Each motion token reads 4 x 4 cells of its residual, since small models
learned directions and motions from those.

Training goes on on L_under alone (:mod:`pipelines.shapes_models.describing`), and at last on all losses and on tokens
that VTok samples itself (:mod:`pipelines.shapes_models.own_tokens`).
"""

import csv
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_tools.draws import Draws
from data_tools.packing import build_shards
from data_tools.shapes import CATEGORIES, Scene, caption_is_right, caption_of, draw_scene, item_of, render_clips
from pipelines.inference.export import add_seconds
from pipelines.inference.load import load_run
from pipelines.inference.understand import Understanding
from pipelines.shapes_models import describing, joint_run, own_tokens
from pipelines.shapes_models.clips import SPLIT
from pipelines.shapes_models.config import ModelsConfig
from pipelines.shapes_models.judged import judged_prompts, new_scenes
from vtok.assembly.pretrained import CONFIG, save_pretrained
from vtok.rows.prompts import CAPTION_INSTRUCTIONS

TABLE = "captions.csv"
CLIPS, HARD_CLIPS, HELD_OUT = "clips", "hard_clips", "held_out"
SHARDS, HARD_SHARDS = "shards", "hard_shards"
HARD, DESCRIBING, OWN, VTOK = "hard", "describing", "own", "vtok"
# These keep the seeds of the scenes apart from those of other stages.
TRAINED_ON, ASKED_ABOUT, HARD_ONES = 20_000_000, 21_000_000, 22_000_000
ASKED = 4  # of so many clips one has a question; the model describes the others


def render(folder: Path, config: ModelsConfig) -> dict[str, Any]:
    """Renders clips to train on, as ``folder/shards`` and ``folder/hard_shards``, and ``folder/held_out``.

    Args:
        folder: Folder of the stage.
        config: The settings.

    Returns:
        ``clips``: the number of clips to train on.
    """
    seed, joint, all_categories = config.later_seed, config.joint, tuple(CATEGORIES)
    render_folder(folder / HELD_OUT, joint.descriptions, seed + ASKED_ABOUT, config, all_categories)
    packed = 0
    for clips, shards, count, offset, categories, asked in (
        (CLIPS, SHARDS, joint.clips, TRAINED_ON, all_categories, ASKED),
        (HARD_CLIPS, HARD_SHARDS, joint.describing.clips, HARD_ONES, describing.HARD, describing.ASKED),
    ):
        render_folder(folder / clips, count, seed + offset, config, categories)
        rewrite(folder / clips / TABLE, seed + offset, categories, asked)
        packed += build_shards(folder / clips, folder / shards, progress=False).packed
    return {"clips": packed}


def render_folder(folder: Path, clips: int, seed: int, config: ModelsConfig, categories: Sequence[str]) -> None:
    """Renders clips of these categories to a folder, unless they are there."""
    how = config.render.frames, config.render.fps, config.render.size
    if not (folder / TABLE).exists():
        render_clips(folder, clips, seed, *how, split=SPLIT, categories=categories)


def rewrite(table: Path, seed: int, categories: Sequence[str], asked: int) -> None:
    """Changes a table of clips: every second caption becomes detailed, and one of ``asked`` clips has a question.

    Where most clips have one the model learns to answer above all, and not to describe.

    Args:
        table: The table, as :func:`data_tools.shapes.render_clips` wrote it.
        seed: The seed that the clips were rendered with.
        categories: Those of the clips.
        asked: Of so many clips one has a question.
    """
    with table.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    with table.open("w", encoding="utf-8", newline="") as file:
        written = csv.writer(file)
        written.writerow(head)
        for number, (path, *_) in enumerate(rows):
            draws = Draws(seed, number)
            scene = draw_scene(draws, SPLIT, categories)
            caption, item = caption_of(scene, draws, detailed=number % 2 == 0), item_of(scene, draws, path)
            written.writerow([path, caption, *((item.question, item.answer) if number % asked == 1 else ("", ""))])


def train(folder: Path, config: ModelsConfig, clip: Path, llava: Path, hunyuan: Path, rendered: Path) -> dict[str, Any]:
    """Trains VTok and writes ``folder/vtok``, an export of the average of its weights.

    Args:
        folder: Folder of the stage.
        config: The settings.
        clip: Folder of the stage ``clip``.
        llava: Folder of the stage ``llava``.
        hunyuan: Folder of HunyuanVideo's parts.
        rendered: Folder of :func:`render`.

    Returns:
        The learning curve; the share of right descriptions of held-out clips, of all and in each category; and what the
        pixel judge says of videos of new scenes (:func:`judged_prompts`).
    """
    model, seed = joint_run.model_of(config, clip, llava, hunyuan), config.later_seed
    hard, describes, own = folder / HARD, folder / DESCRIBING, folder / OWN
    joint_run.precompute(folder, config, model, rendered / SHARDS)
    joint_run.precompute(hard, config, model, rendered / HARD_SHARDS)
    true = {"data": {"shards": str((folder / joint_run.SHARDS).resolve())} | config.joint.data}
    curve = joint_run.train(folder, config, model, true | {"train": config.joint.train})
    own_tokens.write(own, folder, config)
    joint_run.train(describes, config, model, describing.settings(hard, folder, config))
    joint_run.train(own, config, model, own_tokens.settings(own, folder, hard, describes, config))
    run_config, framework, _ = load_run(own / "run", ema=True)
    scenes = new_scenes(seed, config.joint.videos)
    shutil.rmtree(folder / VTOK, ignore_errors=True)
    save_pretrained(framework, folder / VTOK)
    add_seconds(folder / VTOK / CONFIG, config.seconds)
    understanding = Understanding(run_config, framework)
    right, asked = described(understanding, rendered / HELD_OUT, config.joint.descriptions, seed + ASKED_ABOUT)
    by_category = {category: f"{right[category]}/{asked[category]}" for category in sorted(asked)}
    judged = judged_prompts(folder, scenes, config, framework)
    shares = {"descriptions_right": right.total() / asked.total(), "descriptions": by_category}
    return curve | shares | judged


def described(understanding: Understanding, clips: Path, count: int, seed: int) -> tuple[Counter, Counter]:
    """Counts right descriptions of held-out clips, and all, by category.

    The clips are those that :func:`data_tools.shapes.render_clips` rendered with this seed.

    A description is right if it tells the number, colours and shapes of the clip's things, and what each of them does.
    """
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for number in range(count):
        scene: Scene = draw_scene(Draws(seed, number), SPLIT)
        said = understanding.answer(clips / f"{number:03d}.mp4", CAPTION_INSTRUCTIONS[0])
        asked[scene.category] += 1
        right[scene.category] += caption_is_right(said, scene)
    return right, asked
